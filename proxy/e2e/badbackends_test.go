package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/grafana"
)

// A backend that misbehaves must show as a failure that names it, and must not
// matter at all when a healthy replica stands beside it.

// readWay is a way in which oneprom reads a backend.
type readWay string

const (
	queryAPI readWay = "query API"
	streamed readWay = "streamed remote read"
	sampled  readWay = "remote read of samples"
)

var (
	everyTransport = []readWay{queryAPI, streamed, sampled}
	remoteReads    = []readWay{streamed, sampled}
)

// fate is what becomes of a query to the misbehaving backend alone.
type fate int

const (
	mustFail    fate = iota // 422 or 503
	mustBeWhole             // the backend is odd, but nothing is missing
	either                  // a failure or the whole answer, nothing between
)

type badBackend struct {
	name   string
	fault  fault
	over   []readWay
	fate   fate
	reason string // regular expression that the message must match
}

func badBackends() []badBackend {
	all := []badBackend{
		{"HTML with 200", says(200, "text/html", "<html>welcome</html>"), everyTransport, mustFail, `text/html`},
		{"401 with a message", says(401, jsonType, `{"message":"no"}`), everyTransport, mustFail, `401`},
		{"503 with an error", says(503, jsonType, `{"error":"sad"}`), everyTransport, mustFail, `503`},
		{"429 with {}", says(429, jsonType, `{}`), everyTransport, mustFail, `429`},
		{"500 with null", says(500, jsonType, `null`), everyTransport, mustFail, `500`},
		{"500 without body", says(500, jsonType, ``), everyTransport, mustFail, `500`},
		{"502 with HTML", says(502, "text/html", `<html>bad gateway</html>`), everyTransport, mustFail, `502`},
		{"204 without body", func(w http.ResponseWriter, _ *http.Request, _ wire) { w.WriteHeader(204) }, everyTransport, mustFail, ``},
		{"success without data", says(200, jsonType, `{"status":"success"}`), []readWay{queryAPI}, mustFail, `data`},
		{"success with null data", says(200, jsonType, `{"status":"success","data":null}`), []readWay{queryAPI}, mustFail, `data`},
		{"error under 200", says(200, jsonType, `{"status":"error","errorType":"execution","error":"boo"}`), []readWay{queryAPI}, mustFail, `boo`},
		{"no envelope", says(200, jsonType, `{}`), []readWay{queryAPI}, mustFail, ``},
		{"JSON that is text", labelled("text/plain"), []readWay{queryAPI}, mustFail, `text/plain`},
		{"protobuf that is text", labelled("text/plain"), remoteReads, mustFail, `text/plain`},
		{"remote read that is JSON", says(200, jsonType, `{"status":"success","data":[]}`), remoteReads, mustFail, `json`},
		{"endless answer", endless, []readWay{queryAPI, streamed}, mustFail, `(?i)bytes|budget|limit|large|time`},
		{"stalls before the body", stallingAt(0), everyTransport, mustFail, `(?i)time|deadline`},
		{"stalls in the body", stallingAt(0.6), everyTransport, mustFail, `(?i)time|deadline`},
	}
	return slices.Concat(all, badJSON(), badStreams(), badSamples(), cuts())
}

func badJSON() []badBackend {
	over := []readWay{queryAPI}
	return []badBackend{
		{"numbers as values", eachSeries(func(_ map[string]any, vs []any) {
			for _, v := range vs {
				v.([]any)[1] = 1
			}
		}), over, mustFail, ``},
		{"words as values", eachSeries(func(_ map[string]any, vs []any) {
			for _, v := range vs {
				v.([]any)[1] = "many"
			}
		}), over, mustFail, ``},
		{"words as times", eachSeries(func(_ map[string]any, vs []any) {
			for _, v := range vs {
				v.([]any)[0] = "noon"
			}
		}), over, mustFail, ``},
		{"times run backwards", eachSeries(func(s map[string]any, vs []any) {
			slices.Reverse(vs)
			delete(s, "value")
			s["values"] = append(vs, []any{json.Number("1"), "1"})
		}), over, mustFail, ``},
		{"numbers as label values", eachSeries(func(s map[string]any, _ []any) { s["metric"] = map[string]any{"a": 1} }), over, mustFail, ``},
		{"a list as metric", eachSeries(func(s map[string]any, _ []any) { s["metric"] = []any{} }), over, mustFail, ``},
		{"unknown result type", tree(func(d map[string]any, _ []any) { d["resultType"] = "tensor" }), over, mustFail, ``},
		{"the same series twice", tree(func(d map[string]any, result []any) { d["result"] = append(result, result...) }), over, either, ``},
		{"series not sorted", tree(func(_ map[string]any, result []any) { slices.Reverse(result) }), over, mustBeWhole, ``},
		{"keys in another order", tree(func(map[string]any, []any) {}), over, mustBeWhole, ``},
		{"unknown keys", tree(func(d map[string]any, _ []any) { d["analysis"] = map[string]any{"x": []any{1, nil}} }), over, mustBeWhole, ``},
	}
}

func badStreams() []badBackend {
	over := []readWay{streamed}
	each := func(edit func(s *prompb.ChunkedSeries)) fault {
		return readStream(func(all []*prompb.ChunkedSeries) []*prompb.ChunkedSeries {
			for _, s := range all {
				edit(s)
			}
			return all
		})
	}
	return []badBackend{
		{"a frame above the size limit", edited(func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0, 0} }), over, mustFail, `(?i)size|limit|large|bytes`},
		{"a frame length without end", edited(func([]byte) []byte { return []byte(strings.Repeat("\xff", 20)) }), over, mustFail, ``},
		{"a frame that is no message", edited(func([]byte) []byte { return frame([]byte("\xff\xff\xff")) }), over, mustFail, ``},
		{"samples run backwards", each(func(s *prompb.ChunkedSeries) { s.Chunks = []prompb.Chunk{xorChunk(630_000, 600_000, 570_000)} }), over, mustFail, `(?i)order|ascend|backward`},
		{"unknown chunk encoding", each(func(s *prompb.ChunkedSeries) { s.Chunks[0].Type = 99 }), over, mustFail, `(?i)encod`},
		{"chunk encoding zero", each(func(s *prompb.ChunkedSeries) { s.Chunks[0].Type = 0 }), over, mustFail, `(?i)encod`},
		{"a chunk cut short", each(func(s *prompb.ChunkedSeries) { s.Chunks[0].Data = s.Chunks[0].Data[:len(s.Chunks[0].Data)/2] }), over, mustFail, ``},
		{"a chunk without bytes", each(func(s *prompb.ChunkedSeries) { s.Chunks[0].Data = nil }), over, mustFail, ``},
		{"labels not sorted", each(func(s *prompb.ChunkedSeries) { slices.Reverse(s.Labels) }), over, either, ``},
		{"a label twice", each(func(s *prompb.ChunkedSeries) { s.Labels = append(s.Labels, s.Labels[len(s.Labels)-1]) }), over, either, ``},
		{"the same series twice", readStream(func(all []*prompb.ChunkedSeries) []*prompb.ChunkedSeries { return append(all, all...) }), over, either, ``},
		{"series not sorted", readStream(func(all []*prompb.ChunkedSeries) []*prompb.ChunkedSeries {
			slices.Reverse(all)
			return all
		}), over, mustBeWhole, ``},
	}
}

func badSamples() []badBackend {
	over := []readWay{sampled}
	each := func(edit func(s *prompb.TimeSeries)) fault {
		return readSamples(func(r *prompb.ReadResponse) {
			for _, result := range r.Results {
				for _, s := range result.Timeseries {
					edit(s)
				}
			}
		})
	}
	lists := func(edit func([]*prompb.TimeSeries) []*prompb.TimeSeries) fault {
		return readSamples(func(r *prompb.ReadResponse) {
			for _, result := range r.Results {
				result.Timeseries = edit(result.Timeseries)
			}
		})
	}
	return []badBackend{
		{"no result", readSamples(func(r *prompb.ReadResponse) { r.Results = nil }), over, mustFail, `result`},
		{"not snappy", edited(func([]byte) []byte { return []byte("hello") }), over, mustFail, `(?i)snappy|corrupt`},
		{"samples run backwards", each(func(s *prompb.TimeSeries) { slices.Reverse(s.Samples) }), over, mustFail, `(?i)order|ascend|backward`},
		{"labels not sorted", each(func(s *prompb.TimeSeries) { slices.Reverse(s.Labels) }), over, either, ``},
		{"the same series twice", lists(func(all []*prompb.TimeSeries) []*prompb.TimeSeries { return append(all, all...) }), over, either, ``},
		{"series not sorted", lists(func(all []*prompb.TimeSeries) []*prompb.TimeSeries { slices.Reverse(all); return all }), over, mustBeWhole, ``},
	}
}

// cuts spoil the answer at many places.
func cuts() []badBackend {
	var list []badBackend
	for i := range cutPositions {
		part := (float64(i) + 0.37) / cutPositions
		at := fmt.Sprintf(" at %.0f %%", part*100)
		list = append(list,
			badBackend{"cut" + at, cutAt(part), everyTransport, mustFail, ``},
			badBackend{"connection lost" + at, brokenOffAt(part), everyTransport, mustFail, ``},
			badBackend{"byte flipped" + at, edited(func(body []byte) []byte {
				flipped := slices.Clone(body)
				flipped[int(part*float64(len(body)))] ^= 0x10
				return flipped
			}), []readWay{streamed}, mustFail, ``})
	}
	return append(list,
		badBackend{"all but the last byte", edited(func(b []byte) []byte { return b[:len(b)-1] }), everyTransport, mustFail, ``},
		badBackend{"no byte", cutAt(0), []readWay{queryAPI, sampled}, mustFail, ``})
}

// badQueries are asked in turn; the first hears the reason, later ones perhaps
// only that the backend is out.
var badQueries = []string{
	"/api/v1/query_range?query=m&start=300&end=900&step=30",
	"/api/v1/query?query=m&time=600",
	"/api/v1/query?time=600&query=sum(rate(reqs_total[5m]))",
	"/api/v1/query?time=600&query=absent(m)",
}

// queries are what is asked of a backend: one that makes oneprom wait, once.
func (b badBackend) queries() []string {
	if strings.HasPrefix(b.name, "stalls") || strings.HasPrefix(b.name, "endless") {
		return badQueries[:1]
	}
	return badQueries
}

// groupOptions make oneprom use the transport.
func groupOptions(over readWay) []string {
	read := "always"
	if over == queryAPI {
		read = "never"
	}
	return []string{"replica_labels: [replica]", "timeout: 2s", "remote_read: " + read}
}

// spoiledBackend is the address of a backend with the fault, in front of healthy.
func spoiledBackend(t *testing.T, healthy string, b badBackend, over readWay) string {
	t.Helper()
	if over == sampled {
		healthy = onlySamples(t, healthy)
	}
	return spoiling(t, healthy, b.fault)
}

func eachBadBackend(t *testing.T, run func(t *testing.T, healthy string, b badBackend, over readWay)) {
	healthy := reference(t)
	for _, b := range badBackends() {
		for i, over := range b.over {
			if testing.Short() && i > 0 {
				break // each fault once
			}
			t.Run(string(over)+"/"+b.name, func(t *testing.T) { run(t, healthy, b, over) })
		}
	}
}

func TestMisbehavingBackendIsAFailureThatNamesIt(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: make test-race runs it")
	}
	c := badBackendClient(t)
	eachBadBackend(t, func(t *testing.T, healthy string, b badBackend, over readWay) {
		bad := hostPort(t, spoiledBackend(t, healthy, b, over))
		base := oneprom(t, oneBackend([]string{bad}, groupOptions(over)...))
		for i, path := range b.queries() {
			r := c.ask(t, base, probe{path: path})
			if b.fate == mustBeWhole || (b.fate == either && r.status == http.StatusOK) {
				requireWhole(t, c.ask(t, healthy, probe{path: path}), r)
				continue
			}
			requireFailure(t, r, bad)
			if i == 0 {
				require.Regexp(t, b.reason, r.body)
			}
		}
	})
}

func TestHealthyReplicaStandsInForAMisbehavingOne(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: make test-race runs it")
	}
	c := badBackendClient(t)
	eachBadBackend(t, func(t *testing.T, healthy string, b badBackend, over readWay) {
		bad := hostPort(t, spoiledBackend(t, healthy, b, over))
		beside := healthy
		if over == sampled {
			beside = onlySamples(t, healthy)
		}
		base := oneprom(t, oneBackend([]string{bad, hostPort(t, beside)}, groupOptions(over)...))
		for _, path := range b.queries() {
			requireWhole(t, c.ask(t, healthy, probe{path: path}), c.ask(t, base, probe{path: path}))
		}
	})
}

func badBackendClient(t *testing.T) contractPair {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 30 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	return contractPair{client: client}
}

// requireFailure wants an error envelope that names the group or the backend.
func requireFailure(t *testing.T, r reply, backend string) {
	t.Helper()
	require.Contains(t, []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable}, r.status, r.body)
	require.Equal(t, jsonType, r.header.Get("Content-Type")) //nolint:testifylint // a type, no JSON
	var e struct {
		Status, ErrorType, Error string
		Data                     json.RawMessage
	}
	require.NoError(t, json.Unmarshal([]byte(r.body), &e), r.body)
	require.Equal(t, "error", e.Status)
	require.NotEmpty(t, e.ErrorType)
	require.Empty(t, e.Data)
	require.Regexp(t, `"a"|\ba\b.*`+strings.ReplaceAll(backend, ".", `\.`)+`|`+strings.ReplaceAll(backend, ".", `\.`), e.Error)
}

// requireWhole wants the healthy answer; warnings may come with it.
func requireWhole(t *testing.T, healthy, r reply) {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.Equal(t, dataOf(t, healthy.body), dataOf(t, r.body))
}

func dataOf(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		Data json.RawMessage `json:"data"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &e), body)
	return canonical(t, `{"data":`+string(e.Data)+`}`)
}

// The fakes must be what they say: a strict reader of each transport refuses
// those that must fail and reads all of those that must be whole.
func TestFakesMisbehave(t *testing.T) {
	whole := map[readWay]string{}
	healthy := reference(t)
	eachBadBackend(t, func(t *testing.T, healthyHere string, b badBackend, over readWay) {
		if whole[over] == "" {
			honest := spoiledBackend(t, healthy, badBackend{fault: edited(slices.Clone[[]byte])}, over)
			text, err := readStrictly(t, honest, over)
			require.NoError(t, err)
			require.Contains(t, text, "600000")
			whole[over] = text
		}
		text, err := readStrictly(t, spoiledBackend(t, healthyHere, b, over), over)
		switch b.fate {
		case mustFail:
			require.Error(t, err, text)
		case mustBeWhole:
			require.NoError(t, err)
			require.Equal(t, whole[over], text)
		}
	})
}

// readStrictly reads the series m around 600 s, one per line, sorted.
func readStrictly(t *testing.T, base string, over readWay) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if over == queryAPI {
		return readQueryAPI(ctx, t, base)
	}
	querier, err := remoteRead(t, hostPort(t, base), model.Duration(time.Minute)).Querier(300_000, 900_000)
	require.NoError(t, err)
	m := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "m")
	return printSeries(querier.Select(ctx, false, nil, m))
}

func readQueryAPI(ctx context.Context, _ *testing.T, base string) (string, error) {
	client := &http.Client{Transport: contentTypeChecked{&http.Transport{DisableKeepAlives: true}}}
	ds := &grafana.DataSource{URL: base, Client: client}
	r, err := ds.Range(ctx, "m", secs(300), secs(900), 30*time.Second)
	if err == nil && r.Type != "matrix" {
		err = fmt.Errorf("type %s", r.Type)
	}
	for _, f := range r.Frames {
		if !slices.IsSorted(f.Times) && err == nil {
			err = fmt.Errorf("out of order: %v", f.Times)
		}
	}
	lines := printable(r)
	slices.Sort(lines)
	return strings.Join(lines, "\n"), err
}

// contentTypeChecked refuses answers that do not call themselves JSON.
type contentTypeChecked struct{ http.RoundTripper }

func (c contentTypeChecked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err == nil && resp.Header.Get("Content-Type") != jsonType {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("content type %q", resp.Header.Get("Content-Type"))
	}
	return resp, err
}

// printSeries reads to the end. Upstream's decoder panics on some broken chunks,
// which counts as noticing.
func printSeries(set storage.SeriesSet) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var lines []string
	for set.Next() {
		line := set.At().Labels().String()
		it, last := set.At().Iterator(nil), int64(-1)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			if ts <= last {
				return "", fmt.Errorf("out of order: %d after %d", ts, last)
			}
			last = ts
			line += fmt.Sprintf(" %d=%g", ts, v)
		}
		if err := it.Err(); err != nil {
			return "", err
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), set.Err()
}
