package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
)

// maxMessage bounds one protobuf message (bytes): a frame of a streamed answer,
// or a whole answer of samples.
const (
	maxFrame   = 64 << 20
	maxSamples = 2 << 30
)

// read fetches by remote read. A backend that was asked for a stream may answer
// with samples all the same (Cortex does); both are understood.
func (c *Client) read(ctx context.Context, m Method, r Request) ([]Series, error) {
	resp, err := c.sendRead(ctx, m, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body := &chargingReader{r: resp.Body, charge: r.Charge}
	p := seriesParser{from: c.URL(), labels: r.Labels, mint: r.MinT, maxt: r.MaxT}
	if isStream(resp) {
		err = p.stream(body)
	} else {
		err = p.samples(body)
	}
	if err == nil {
		return p.series, nil
	}
	var broken *formatError
	var said *saidError
	switch {
	case errors.As(err, &said):
		return nil, &Error{Class: ClassServer, URL: c.URL(), Err: err}
	case errors.As(err, &broken):
		return nil, c.contentError(err)
	}
	return nil, c.bodyError(ctx, err)
}

func (c *Client) sendRead(ctx context.Context, m Method, r Request) (*http.Response, error) {
	if c.dialect.FindsWithin {
		r.Matchers = anchored(r.Matchers)
	}
	body, err := encodeReadRequest(m, r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint(c.ReadPath, nil), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", typeProto)
	req.Header.Set("Accept-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	return c.send(req, typeStream, typeProto)
}

func isStream(resp *http.Response) bool {
	return bytes.HasPrefix([]byte(resp.Header.Get("Content-Type")), []byte(typeStream))
}

func encodeReadRequest(m Method, r Request) ([]byte, error) {
	q := &prompb.Query{
		StartTimestampMs: r.MinT,
		EndTimestampMs:   r.MaxT,
		Hints:            &prompb.ReadHints{StartMs: r.MinT, EndMs: r.MaxT},
	}
	for _, lm := range r.Matchers {
		typ, ok := matcherTypes[lm.Type]
		if !ok {
			return nil, fmt.Errorf("BUG: unknown matcher type %v", lm.Type)
		}
		q.Matchers = append(q.Matchers, &prompb.LabelMatcher{Type: typ, Name: lm.Name, Value: lm.Value})
	}
	req := &prompb.ReadRequest{Queries: []*prompb.Query{q}}
	if m == StreamedRead {
		req.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
	}
	data, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, data), nil
}

var matcherTypes = map[labels.MatchType]prompb.LabelMatcher_Type{
	labels.MatchEqual:     prompb.LabelMatcher_EQ,
	labels.MatchNotEqual:  prompb.LabelMatcher_NEQ,
	labels.MatchRegexp:    prompb.LabelMatcher_RE,
	labels.MatchNotRegexp: prompb.LabelMatcher_NRE,
}

// ProbeRead asks for nothing by remote read and returns how the backend answers.
func (c *Client) ProbeRead(ctx context.Context) (Method, error) {
	resp, err := c.sendRead(ctx, StreamedRead, nothing())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)); err != nil {
		return "", c.bodyError(ctx, err)
	}
	if isStream(resp) {
		return StreamedRead, nil
	}
	return SamplesRead, nil
}

// anchored writes regular expressions so that they match whole values where the
// backend searches within them.
func anchored(ms []*labels.Matcher) []*labels.Matcher {
	out := slices.Clone(ms)
	for i, m := range out {
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			out[i] = labels.MustNewMatcher(m.Type, m.Name, "^(?s:"+m.Value+")$")
		}
	}
	return out
}
