// Package transport is the client of one replica. It fetches samples by remote read, by the
// query API or by VictoriaMetrics' export API, reads the other endpoints of the Prometheus
// HTTP API, and finds out which kind of backend it speaks to and how that wants to be asked
// (Dialect). Every failure is an Error with a class. It knows nothing of other replicas.
//
// The query API and the other endpoints: https://prometheus.io/docs/prometheus/latest/querying/api/.
package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/oneprom/oneprom/servergroup/transport/envelope"
	"github.com/oneprom/oneprom/servergroup/transport/meter"
)

// Client speaks to one replica. It is safe for concurrent use.
type Client struct {
	// HTTP carries authentication, TLS and proxies as configured.
	HTTP *http.Client
	// Base is the URL before `/api/v1`, with any path prefix.
	Base *url.URL
	// ReadPath is the path of remote read below Base.
	ReadPath string
	// Header is sent with each request, Params are added to each URL.
	Header http.Header
	Params url.Values
	// Forward are the canonical names of the headers that are passed on from the client for
	// whom a request is made; see WithClientHeader.
	Forward []string
	// Forwarding sends requests with such headers if HTTP would add credentials of oneprom's
	// own. If nil, HTTP sends them.
	Forwarding *http.Client
	// Group is the name of the replica's server group, for traces.
	Group string
	// Distance learns the round-trip time. If nil, the replica is taken to be far away.
	Distance *Distance
	// Clock, if not nil, learns how far the replica's clock is from ours.
	Clock *Clock
	// Forms learns whether forms reach the replica. If nil, nothing is remembered of that.
	Forms *Forms

	// lastOnConnection closes connections after requests.
	lastOnConnection bool

	dialect  Dialect
	passedOn http.Header // see ForClient
}

// maxErrorBody is how much of a body is searched for an error text (bytes).
const maxErrorBody = 4 << 10

// maxTextBody bounds the bodies of label, series and metadata responses (bytes),
// maxProbeBody those that are charged to no query, and maxProbeMade what is made of these.
const (
	maxTextBody  = 256 << 20
	maxProbeBody = 8 << 20
	maxProbeMade = 64 << 20
)

const (
	typeJSON   = "application/json"
	typeProto  = "application/x-protobuf"
	typeStream = "application/x-streamed-protobuf"
)

// URL returns the replica's base URL without credentials.
func (c *Client) URL() string { return c.Base.Redacted() }

func (c *Client) endpoint(path string, params url.Values) string {
	u := *c.Base
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	u.RawPath = ""
	q := u.Query()
	for _, vs := range []url.Values{c.Params, params} {
		for k, v := range vs {
			q[k] = append(q[k], v...)
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// send does one request and checks status and content type. The body of the
// response is the caller's to close.
func (c *Client) send(req *http.Request, wantTypes ...string) (*http.Response, error) {
	req, call := c.traced(req)
	resp, err := c.exchange(req, wantTypes...)
	call.responded(resp, err)
	return resp, err
}

// exchange is send without a trace.
func (c *Client) exchange(req *http.Request, wantTypes ...string) (*http.Response, error) {
	if c.dialect.Fronted {
		req.Header.Set("Cache-Control", "no-store")
	}
	maps.Copy(req.Header, c.Header)
	req.Header.Set("User-Agent", "oneprom")
	if req.Header.Get("Accept-Encoding") == "" && c.Distance.near() {
		req.Header.Set("Accept-Encoding", "identity") // the default is gzip
	}
	req.Close = c.lastOnConnection
	sender := c.forward(req)
	asked := time.Now()
	resp, err := c.do(sender, req)
	if err != nil {
		return nil, c.transportError(req.Context(), err)
	}
	c.Clock.observe(resp.Header, asked, time.Now())
	if err := uncompress(resp); err != nil {
		resp.Body.Close()
		return nil, c.contentError(err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return nil, statusError(c.URL(), resp, body)
	}
	got, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		got = resp.Header.Get("Content-Type")
	}
	if slices.Contains(wantTypes, got) {
		return resp, nil
	}
	resp.Body.Close()
	return nil, c.contentError(fmt.Errorf("content type %q instead of %s", clip(got), strings.Join(wantTypes, " or ")))
}

// text decodes the JSON responses of all endpoints but those of queries (labels, series, metadata,
// status) into data and returns their warnings and infos. A nil charge is that of a probe, which no
// query pays for.
func (c *Client) text(resp *http.Response, charge func(int) error, data any) ([]string, error) {
	defer resp.Body.Close()
	most := maxTextBody
	if charge == nil {
		most, charge = maxProbeBody, upTo(maxProbeMade)
	}
	ctx := resp.Request.Context()
	e, err := envelope.Decode(&limitedReader{r: resp.Body, left: most}, meter.New(ctx, charge), data)
	var (
		wrong *envelope.FormatError
		large *tooLargeError
	)
	switch {
	case errors.As(err, &wrong), errors.As(err, &large):
		return nil, c.contentError(err)
	case err != nil:
		return nil, c.bodyError(ctx, err)
	case e.Status != "success":
		return nil, c.contentError(fmt.Errorf("status %q in a 200 answer: %s", clip(e.Status), clip(e.Error)))
	case !e.HasData:
		return nil, c.contentError(errors.New("success without data"))
	}
	warnings, infos := clipped(e.Warnings), clipped(e.Infos)
	if e.IsPartial {
		warnings = append(warnings, partialText)
	}
	return append(warnings, infos...), nil
}

// tooLargeError is the error of an answer that is larger than any that is expected.
type tooLargeError struct{ most int }

func (e *tooLargeError) Error() string { return fmt.Sprintf("answer of more than %d bytes", e.most) }

// limitedReader fails if there are more bytes.
type limitedReader struct {
	r         io.Reader
	left, all int
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.all += n; l.all > l.left {
		return n, &tooLargeError{l.left}
	}
	return n, err
}

// upTo returns a charge that fails when more is charged than most bytes.
func upTo(most int) func(int) error {
	all := 0
	return func(n int) error {
		if all += n; all > most {
			return &tooLargeError{most}
		}
		return nil
	}
}

// partialText is the warning that isPartial becomes.
const partialText = "the answer is partial, it says"

// formatTime prints a time in ms as the API takes it: seconds with exact decimals.
func formatTime(ms int64) string {
	neg := ""
	if ms < 0 {
		neg, ms = "-", -ms
	}
	return fmt.Sprintf("%s%d.%03d", neg, ms/1000, ms%1000)
}

func formatDuration(ms int64) string { return formatTime(ms) }

// timeoutParam sets the timeout of a query to the time that is left until the deadline of ctx.
func timeoutParam(ctx context.Context, form url.Values) {
	if d, ok := ctx.Deadline(); ok {
		left := max(time.Until(d), time.Millisecond)
		form.Set("timeout", formatDuration(left.Milliseconds()))
	}
}

// maxWarning is how much of a warning or info is passed on (bytes), maxWarnings how many of them.
const (
	maxWarning  = 1000
	maxWarnings = 100
)

// clipped shortens the warnings, or infos, of an answer.
func clipped(texts []string) []string {
	var out []string
	for _, text := range texts[:min(len(texts), maxWarnings)] {
		out = append(out, clipTo(maxWarning, text))
	}
	if more := len(texts) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("and %d more warnings", more))
	}
	return out
}

// Cut is the end of foreign text that was shortened.
const Cut = "…"

// clip shortens foreign text for an error message to 200 bytes and replaces control
// characters, which could break a log line.
func clip(s string) string { return clipTo(200, s) }

// clipTo is clip to another number of bytes. A shortened text ends in Cut.
func clipTo(most int, s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + Cut
	}
	return strings.TrimSpace(s)
}

// firstLine is the error text of a body that is not JSON: its first line.
func firstLine(b []byte) string {
	b = bytes.TrimSpace(b)
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return clip(withoutRequest(string(b)))
}

// withoutRequest removes the request, whose parameters may be secret, from the beginning of
// an error of VictoriaMetrics.
func withoutRequest(text string) string {
	_, rest, found := strings.Cut(text, "requestURI: ")
	if !found {
		return text
	}
	_, text, _ = strings.Cut(rest, "; ")
	return text
}
