package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// The fakes: each passes a request to a healthy Prometheus and spoils the answer.

const (
	jsonType    = "application/json"
	streamType  = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
	samplesType = "application/x-protobuf"
)

// wire is an answer as it went over the wire.
type wire struct {
	status int
	header http.Header
	body   []byte
}

// fault writes something else than the healthy answer.
type fault func(w http.ResponseWriter, r *http.Request, healthy wire)

// isProbe tells a request by which oneprom finds out what a backend is from one
// that a query makes.
func isProbe(r *http.Request, body []byte) bool {
	if strings.Contains(r.URL.Path, "/status/") {
		return true
	}
	if raw, err := snappy.Decode(nil, body); err == nil {
		body = raw
	}
	return bytes.Contains(body, []byte("oneprom_probe")) || bytes.Contains(body, []byte(url.QueryEscape("topk(1, up)")))
}

// spoiling is a backend that answers every query with the fault.
func spoiling(t *testing.T, healthyURL string, f fault) (baseURL string) {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, healthyURL+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header = r.Header.Clone()
		req.Header.Del("Accept-Encoding")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			return
		}
		healthy := wire{status: resp.StatusCode, header: resp.Header, body: answer}
		if isProbe(r, body) {
			healthy.send(w)
			return
		}
		f(w, r, healthy)
	}))
}

// send writes an answer with its length, as a server that believes in it would.
func (a wire) send(w http.ResponseWriter) {
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if v := a.header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// says answers always the same.
func says(status int, contentType, body string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ wire) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// labelled changes nothing but the content type.
func labelled(contentType string) fault {
	return func(w http.ResponseWriter, _ *http.Request, a wire) {
		a.header.Set("Content-Type", contentType)
		a.send(w)
	}
}

// edited changes the body and sends it in good faith.
func edited(edit func(body []byte) []byte) fault {
	return func(w http.ResponseWriter, _ *http.Request, a wire) {
		a.body = edit(a.body)
		a.send(w)
	}
}

// cutAt is the answer up to a part of it, between 0 and 1.
func cutAt(part float64) fault {
	return edited(func(body []byte) []byte { return body[:int(part*float64(len(body)))] })
}

// brokenOffAt promises the whole answer and closes the connection on the way.
func brokenOffAt(part float64) fault {
	return func(w http.ResponseWriter, _ *http.Request, a wire) {
		w.Header().Set("Content-Type", a.header.Get("Content-Type"))
		if e := a.header.Get("Content-Encoding"); e != "" {
			w.Header().Set("Content-Encoding", e)
		}
		_, _ = w.Write(a.body[:int(part*float64(len(a.body)))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// stallingAt sends a part and then nothing, until the client goes away.
func stallingAt(part float64) fault {
	return func(w http.ResponseWriter, r *http.Request, a wire) {
		w.Header().Set("Content-Type", a.header.Get("Content-Type"))
		_, _ = w.Write(a.body[:int(part*float64(len(a.body)))])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// endless repeats well-formed series for as long as somebody reads.
func endless(w http.ResponseWriter, r *http.Request, a wire) {
	w.Header().Set("Content-Type", a.header.Get("Content-Type"))
	next := func(i int) []byte { return fmt.Appendf(nil, `{"metric":{"i":"%d"},"values":[[600,"1"]]},`, i) }
	if strings.HasPrefix(a.header.Get("Content-Type"), streamType) {
		next = func(i int) []byte {
			data, _ := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{
				Labels: []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "i", Value: fmt.Sprintf("%09d", i)}},
				Chunks: []prompb.Chunk{xorChunk(600_000)},
			}}}).Marshal()
			return frame(data)
		}
	} else {
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[`)
	}
	for i := 0; r.Context().Err() == nil; i++ {
		if _, err := w.Write(next(i)); err != nil {
			return
		}
	}
}

// tree edits the decoded JSON of an answer whose data is an object.
func tree(edit func(data map[string]any, result []any)) fault {
	return edited(func(body []byte) []byte {
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		var root map[string]any
		if decoder.Decode(&root) != nil {
			return body
		}
		data, ok := root["data"].(map[string]any)
		if !ok {
			return body
		}
		result, _ := data["result"].([]any)
		edit(data, result)
		text, _ := json.Marshal(root)
		return text
	})
}

// eachSeries edits every series of a JSON answer; values are its samples.
func eachSeries(edit func(series map[string]any, values []any)) fault {
	return tree(func(_ map[string]any, result []any) {
		for _, s := range result {
			if series, ok := s.(map[string]any); ok {
				values, _ := series["values"].([]any)
				if v, ok := series["value"]; ok {
					values = []any{v}
				}
				edit(series, values)
			}
		}
	})
}

// castagnoli is the polynomial of the frame checksum.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame packs a message of the stream: length, checksum, message.
func frame(data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(data)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
	return append(b, data...)
}

// readStream edits the series of a streamed answer, over all frames.
func readStream(edit func([]*prompb.ChunkedSeries) []*prompb.ChunkedSeries) fault {
	return edited(func(body []byte) []byte {
		var all []*prompb.ChunkedSeries
		reader := remote.NewChunkedReader(bytes.NewReader(body), 1<<20, nil)
		for {
			var message prompb.ChunkedReadResponse
			if reader.NextProto(&message) != nil {
				break
			}
			all = append(all, message.ChunkedSeries...)
		}
		var out []byte
		for _, s := range edit(all) {
			data, _ := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s}}).Marshal()
			out = append(out, frame(data)...)
		}
		return out
	})
}

// readSamples edits the series of an answer in the form of plain samples.
func readSamples(edit func(*prompb.ReadResponse)) fault {
	return edited(func(body []byte) []byte {
		var message prompb.ReadResponse
		data, err := snappy.Decode(nil, body)
		if err != nil || message.Unmarshal(data) != nil {
			return body
		}
		edit(&message)
		data, _ = message.Marshal()
		return snappy.Encode(nil, data)
	})
}

// onlySamples is a front that makes a Prometheus answer reads with samples,
// whatever the client accepts.
func onlySamples(t *testing.T, healthyURL string) (baseURL string) {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasSuffix(r.URL.Path, "/api/v1/read") {
			var message prompb.ReadRequest
			if data, err := snappy.Decode(nil, body); err == nil && message.Unmarshal(data) == nil {
				message.AcceptedResponseTypes = nil
				data, _ = message.Marshal()
				body = snappy.Encode(nil, data)
			}
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, healthyURL+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header = r.Header.Clone()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return
		}
		defer func() { _ = resp.Body.Close() }()
		answer, _ := io.ReadAll(resp.Body)
		wire{status: resp.StatusCode, header: resp.Header, body: answer}.send(w)
	}))
}

// xorChunk holds a sample of value 1 at each of the times, in ms.
func xorChunk(times ...int64) prompb.Chunk {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for _, ts := range times {
		app.Append(0, ts, 1)
	}
	return prompb.Chunk{MinTimeMs: times[0], MaxTimeMs: times[len(times)-1], Type: prompb.Chunk_XOR, Data: c.Bytes()}
}

func TestFakesCanFrame(t *testing.T) {
	data := []byte("some message")
	got, err := remote.NewChunkedReader(bytes.NewReader(frame(data)), 1<<10, nil).Next()
	require.NoError(t, err)
	require.Equal(t, data, got)
}
