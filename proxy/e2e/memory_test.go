//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// hostile is an answer that becomes much in memory.
type hostile struct {
	name, ask   string // of oneprom: a path with its parameters
	path        string // that the backend answers
	contentType string
	// The body, which is made of many repetitions and ends only when nobody reads it any more; snappy-compressed bodies are whole.
	head, again []byte
	whole       func() []byte
}

const (
	askSamples  = `/api/v1/query?query=` + `count(last_over_time({__name__%3D~".%2B"}[1h]))`
	askRange    = `/api/v1/query_range?start=0&end=3600&step=60&query=` + `count({__name__%3D~".%2B"})`
	memoryMost  = 32 << 20
	memoryRatio = 3
)

func protoField(num byte, message []byte) []byte {
	return append(protowire.AppendVarint([]byte{num<<3 | 2}, uint64(len(message))), message...)
}

func protoLabel(name, value string) []byte {
	return protoField(1, append(protoField(1, []byte(name)), protoField(2, []byte(value))...))
}

// hostiles are all payloads that we can think of. n is about how many bytes the raw ones have.
func hostiles(t *testing.T, n int) []hostile {
	t.Helper()
	times := func(one []byte) []byte { return bytes.Repeat(one, n/len(one)+1) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	numbered := func(f func(i int) []byte) []byte {
		var all []byte
		for i := 0; len(all) < n; i++ {
			all = append(all, f(i)...)
		}
		return all
	}
	frame := func(message []byte) []byte {
		var b bytes.Buffer
		_, err := remote.NewChunkedWriter(&b, nopFlusher{}).Write(message)
		require.NoError(t, err)
		return b.Bytes()
	}
	sample := protoField(2, join([]byte{1<<3 | 1}, make([]byte, 8), []byte{2 << 3, 0x80, 0x89, 0x0f})) // 0 at 250 s
	name := protoLabel("__name__", "m")
	samples := func(name string, series func() []byte) hostile {
		return hostile{
			name: "samples: " + name, ask: askSamples, path: "/api/v1/read", contentType: "application/x-protobuf",
			whole: func() []byte { return snappy.Encode(nil, protoField(1, series())) },
		}
	}
	stream := func(name string, frames []byte) hostile {
		return hostile{name: "stream: " + name, ask: askRange, path: "/api/v1/read", contentType: streamType, again: frames}
	}
	text := func(name, ask, path, head, again string) hostile {
		if path == "" {
			path = ask
		}
		path, _, _ = strings.Cut(path, "?")
		return hostile{name: name, ask: ask, path: path, contentType: jsonType, head: []byte(`{"status":"success","data":` + head), again: []byte(again)}
	}
	xor := func(samples int) []byte {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for i := range samples {
			app.Append(0, int64(i)*10, 1)
		}
		chunk := prompb.Chunk{MinTimeMs: 0, MaxTimeMs: int64(samples) * 10, Type: prompb.Chunk_XOR, Data: c.Bytes()}
		data, err := chunk.Marshal()
		require.NoError(t, err)
		return protoField(2, data)
	}
	tiny := numbered(func(i int) []byte {
		return frame(protoField(1, join(name, protoLabel("n", strconv.Itoa(i)), xor(1))))
	})
	stamped := func(message func(i int) []byte) []byte {
		return numbered(func(i int) []byte {
			return protoField(4, append(protowire.AppendVarint([]byte{15 << 3}, uint64(i+1)), message(i)...))
		})
	}
	return []hostile{
		samples("series of one sample", func() []byte {
			return numbered(func(i int) []byte { return protoField(1, join(name, protoLabel("n", strconv.Itoa(i)), sample)) })
		}),
		samples("a series of samples", func() []byte {
			return protoField(1, join(name, numbered(func(i int) []byte {
				return protoField(2, append([]byte{2 << 3}, protowire.AppendVarint(nil, uint64(i+1))...))
			})))
		}),
		samples("empty histograms", func() []byte { return protoField(1, join(name, stamped(func(int) []byte { return nil }))) }),
		samples("histograms of empty spans", func() []byte {
			return protoField(1, join(name, stamped(func(int) []byte { return bytes.Repeat([]byte{11<<3 | 2, 0}, 5000) })))
		}),
		samples("a histogram of spans", func() []byte { return protoField(1, join(name, protoField(4, times([]byte{11<<3 | 2, 0})))) }),
		samples("labels of one byte", func() []byte { return protoField(1, times(protoLabel("a", ""))) }),
		samples("long labels", func() []byte {
			return times(protoField(1, join(name, protoLabel("a", strings.Repeat("x", 100_000)), sample)))
		}),
		stream("series of one sample", tiny),
		stream("one series that does not end", frame(protoField(1, join(name, xor(60_000))))),
		stream("chunks of one sample", frame(protoField(1, join(name, bytes.Repeat(xor(1), 10_000))))),
		stream("labels of one byte", frame(protoField(1, bytes.Repeat(protoLabel("a", ""), 100_000)))),
		{name: "JSON: empty series", ask: askRange, path: "/api/v1/query_range", contentType: jsonType, head: []byte(`{"status":"success","data":{"resultType":"matrix","result":[`), again: []byte(`{},`)},
		{
			name: "JSON: series of one sample", ask: askRange, path: "/api/v1/query_range", contentType: jsonType,
			head: []byte(`{"status":"success","data":{"resultType":"matrix","result":[`), again: []byte(`{"metric":{"a":"b"},"values":[[60,"1"]]},`),
		},
		{
			name: "JSON: histograms", ask: askRange, path: "/api/v1/query_range", contentType: jsonType,
			head: []byte(`{"status":"success","data":{"resultType":"matrix","result":[`), again: []byte(`{"histograms":[[60,{"count":"0","sum":"0"}]]},`),
		},
		{
			name: "JSON: buckets", ask: askRange, path: "/api/v1/query_range", contentType: jsonType,
			head: []byte(`{"status":"success","data":{"resultType":"matrix","result":[{"histograms":[[60,{"count":"0","sum":"0","buckets":[`), again: []byte(`[0,"1","2","1"],`),
		},
		{name: "JSON: warnings", ask: askRange, path: "/api/v1/query_range", contentType: jsonType, head: []byte(`{"status":"success","warnings":[`), again: []byte(`"",`)},
		{name: "JSON: white space", ask: askRange, path: "/api/v1/query_range", contentType: jsonType, head: []byte(`{`), again: []byte(` `)},
		text("label names", "/api/v1/labels", "", "[", `"a",`),
		text("label values", "/api/v1/label/a/values", "", "[", `"aa",`),
		text("one label value", "/api/v1/label/a/values", "", `["`, `aaaaaaaa`),
		text("series", "/api/v1/series?match[]=m", "", "[", `{},`),
		text("a series of labels", "/api/v1/series?match[]=m", "", "[{", `"a":"",`),
		text("exemplars", "/api/v1/query_exemplars?query=m&start=0&end=1", "", "[", `{"seriesLabels":{"a":"b"},"exemplars":[{},{},{}]},`),
		text("metadata", "/api/v1/metadata", "", `{"a":[`, `{},`),
		text("rule groups", "/api/v1/rules", "", `{"groups":[`, `{},`),
		text("rules", "/api/v1/rules", "", `{"groups":[{"rules":[`, `{},`),
		text("alerts", "/api/v1/alerts", "", `{"alerts":[`, `null,`),
		text("targets", "/api/v1/targets", "", `{"activeTargets":[`, `{},`),
		text("statistics", "/api/v1/status/tsdb", "", `{"seriesCountByMetricName":[`, `{},`),
		text("what nobody wants", "/api/v1/rules", "", `{"other":[`, `[],`),
	}
}

type nopFlusher struct{}

func (nopFlusher) Flush() {}

// answer writes the answer until nobody reads it any more.
func (h hostile) answer(w http.ResponseWriter, zipped bool) {
	w.Header().Set("Content-Type", h.contentType)
	if h.whole != nil {
		_, _ = w.Write(h.whole())
		return
	}
	var to io.Writer = w
	if zipped {
		w.Header().Set("Content-Encoding", "gzip")
		to, _ = gzip.NewWriterLevel(w, gzip.BestSpeed)
	}
	_, err := to.Write(h.head)
	many := bytes.Repeat(h.again, max(1, (64<<10)/len(h.again)))
	for err == nil {
		_, err = to.Write(many)
	}
}

// TestHostileAnswersAreBoundInMemoryAndTime asks a oneprom, in a process of its own, for what a hostile backend answers:
// its peak memory grows by no more than three times the budget and 32 MiB, and each query ends with its timeout.
func TestHostileAnswersAreBoundInMemoryAndTime(t *testing.T) {
	const timeout = 20 * time.Second
	binary := onepromBinary(t)
	healthy := serve(t, backendtest.NewHandler(backendtest.Options{Queryable: backendtest.Empty{}}))
	for _, budget := range []int64{64 << 20, 256 << 20} {
		var list []hostile
		for i, part := range []int64{8, 50, 300} { // what becomes more than it came as, up to the budget
			for _, h := range hostiles(t, int(budget/part)) {
				switch {
				case h.whole != nil:
					h.name += fmt.Sprintf(", 1/%d of the budget", part)
					list = append(list, h)
				case i == 0:
					list = append(list, h)
				}
			}
		}
		for _, h := range list {
			t.Run(fmt.Sprintf("%d MiB/%s", budget>>20, h.name), func(t *testing.T) {
				backend := spoiling(t, healthy, func(w http.ResponseWriter, r *http.Request, a wire) {
					if r.URL.Path != h.path {
						a.send(w)
						return
					}
					h.answer(w, budget == 256<<20 && h.contentType == jsonType)
				})
				options := []string{"pushdown: off", "remote_read: never"}
				if h.path == "/api/v1/read" {
					options[1] = "remote_read: always"
				}
				config := filepath.Join(t.TempDir(), "oneprom.yml")
				require.NoError(t, os.WriteFile(config, []byte(oneBackend([]string{hostPort(t, backend)}, options...)), 0o600))
				front := world.Run(t, binary, "--config.file="+config, "--query.timeout="+timeout.String(), fmt.Sprintf("--query.max-fetched-bytes=%d", budget), "--audit.share=0")
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				defer client.CloseIdleConnections()
				resp, err := client.Get(front.URL + "/api/v1/query?query=1")
				require.NoError(t, err)
				resp.Body.Close()
				before, err := front.PeakMemory()
				require.NoError(t, err)
				began := time.Now()
				resp, err = client.Get(front.URL + h.ask)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				resp.Body.Close()
				took := time.Since(began)
				after, err := front.PeakMemory()
				require.NoError(t, err)
				t.Logf("%d after %s, %d MiB more: %.200s", resp.StatusCode, took.Round(time.Millisecond), (after-before)>>20, body)
				require.True(t, json.Valid(body))
				require.LessOrEqual(t, after-before, memoryRatio*budget+memoryMost)
				require.Less(t, took, timeout+5*time.Second)
			})
		}
	}
}
