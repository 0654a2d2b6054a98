package verify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server starts a Prometheus that holds what a script of upstream's tests loads from 1970 on.
func server(t *testing.T, load string) string {
	t.Helper()
	storage := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { _ = storage.Close() })
	return serve(t, backendtest.NewHandler(backendtest.Options{Queryable: storage}))
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// always answers with a body.
func always(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "queries")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// run is what a command line brings, and its exit code.
func run(ctx context.Context, t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	app := kingpin.New("oneprom", "").Terminate(nil)
	var c Command
	c.AddFlags(app.Command("verify", ""))
	_, err := app.Parse(append([]string{"verify"}, args...))
	require.NoError(t, err)
	c.Now = func() time.Time { return time.Unix(3600+300, 0) } // the range is 0 to 1h
	var out, errs strings.Builder
	code = c.Run(ctx, &out, &errs)
	return code, out.String(), errs.String()
}

const hour = "load 1m\n  up{i=\"a\"} 1x60\n  up{i=\"b\"} 0x60\n  x{i=\"a\"} 0+1x60\n"

func TestRun_Equal(t *testing.T) {
	a, b := server(t, hour), server(t, hour)
	path := file(t, "# comment\nup\n\n  sum(rate(x[5m]))\nup[5m]\n'text'\n1\nup\n")
	code, stdout, stderr := run(t.Context(), t, "--reference="+a, "--test="+b+"/", path)
	require.Equal(t, exitEqual, code, stdout+stderr)
	require.Empty(t, stderr, "no progress, which is for terminals")
	require.Regexp(t, `^query +verdict +reference +test +ratio\nup +equal +[0-9.]+ ms +[0-9.]+ ms +[0-9.]+\n`, stdout)
	require.Regexp(t, `\n5 queries: 5 equal; medians: reference [0-9.]+ ms, test [0-9.]+ ms, ratio [0-9.]+\n$`, stdout)
}

func TestRun_Differs(t *testing.T) {
	a := server(t, hour)
	b := server(t, "load 1m\n  up{i=\"a\"} 1x30 0 1x29\n  x{i=\"a\"} 0+1x60\n  z 1x60\n")
	path := file(t, "x\nup\nz\nsum(up) +\n")
	code, stdout, _ := run(t.Context(), t, "--reference="+a, "--test="+b, path)
	require.Equal(t, exitDiffers, code)
	require.Contains(t, stdout, fmt.Sprintf("\ndifferent: up\n  %s:2, from 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z each 1m\n"+
		`  series missing: {"__name__"="up","i"="b"} (61 points); and 1 more`, path))
	require.Contains(t, stdout, "\ndifferent: z\n")
	require.Contains(t, stdout, "\nboth failed: sum(up) +\n")
	require.Contains(t, stdout, "\n4 queries: 1 equal, 2 different, 1 both failed; ")

	// Instant queries are asked at the end.
	code, stdout, _ = run(t.Context(), t, "--reference="+a, "--test="+b, "--instant", "--end=1860", file(t, `up{i="a"}`))
	require.Equal(t, exitDiffers, code, stdout)
	code, stdout, _ = run(t.Context(), t, "--reference="+a, "--test="+b, "--instant", "--end=1970-01-01T00:10:00Z", file(t, `up{i="a"}`))
	require.Equal(t, exitEqual, code, stdout)
}

// answers are compared by f(want, got, verdict): each is what a server sends as data, with further keys after it.
func TestRun_Verdicts(t *testing.T) {
	f := func(want, got http.Handler, code int, text string, flags ...string) {
		t.Helper()
		args := append(flags, "--reference="+serve(t, want), "--test="+serve(t, got), file(t, "sum(x)"))
		gotCode, stdout, stderr := run(t.Context(), t, args...)
		require.Equal(t, code, gotCode, stdout+stderr)
		require.Contains(t, stdout, text)
	}
	vector := func(value, rest string) http.Handler {
		return always(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[10,"`+value+`"]}]}`+rest+`}`)
	}
	failing := always(503, `{"status":"error","errorType":"timeout","error":"too slow"}`)

	f(vector("1", ""), vector("1.0000000000000009", ""), exitEqual, "1 equal") // 4 ulps
	f(vector("1", ""), vector("1.0000000000000009", ""), exitDiffers, "(4 ulp, relative 8.9e-16)", "--ulps=0")
	f(vector("1", ""), vector("1.000000000000002", ""), exitDiffers, "(9 ulp")
	f(vector("NaN", ""), vector("NaN", ""), exitEqual, "1 equal")
	f(vector("NaN", ""), vector("1", ""), exitDiffers, "want \"NaN\", got \"1\"")
	f(vector("+Inf", ""), vector("-Inf", ""), exitDiffers, "1 different")
	f(vector("0", ""), vector("-0", ""), exitEqual, "1 equal", "--ulps=0")
	f(vector("1000000", ""), vector("1e+06", ""), exitEqual, "1 equal")
	f(vector("1", ""), vector("1", `,"warnings":["partial answer: eu"]`), exitDiffers, `partial: sum(x)`)
	f(vector("1", ""), vector("2", `,"warnings":["partial answer: eu"]`), exitDiffers, `got ["partial answer: eu"]; values: {}`)
	f(vector("1", ""), vector("1", `,"infos":["without a replica"]`), exitEqual, "1 infos")
	f(vector("1", ""), failing, exitDiffers, "test failed: sum(x)")
	f(failing, vector("1", ""), exitUnknown, "reference failed: sum(x)")
	f(failing, failing, exitUnknown, "1 both failed")
	f(vector("1", ""), always(200, "<html>"), exitDiffers, "test failed: sum(x)")
	f(vector("1", ""), always(200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`), exitDiffers, "result type: want vector, got matrix")
	f(vector("1", ""), always(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[10.0,"1"]}]}}`), exitEqual, "1 equal")
	f(vector("1", ""), always(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[10.001,"1"]}]}}`), exitDiffers, "got nothing")
	histogram := func(count string) http.Handler {
		return always(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[10,{"count":"`+count+`","sum":"4","buckets":[[0,"1","2","3"]]}]}]}}`)
	}
	f(histogram("3"), histogram("3.0000000000000004"), exitEqual, "1 equal")
	f(histogram("3"), histogram("4"), exitDiffers, "1 different")

	// What a server says does not control the terminal.
	f(vector("1", ""), always(500, "\x1b[2J boom"), exitDiffers, "status 500: ")
	_, stdout, _ := run(t.Context(), t, "--reference="+serve(t, failing), "--test="+serve(t, always(400, `{"status":"error","errorType":"x","error":"\u001b[2J\nboom"}`)), file(t, "x"))
	require.NotContains(t, stdout, "\x1b")
	require.Contains(t, stdout, "[2J boom")
}

// endless sends what never ends.
func TestRun_BodiesAreBounded(t *testing.T) {
	endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		piece := []byte(strings.Repeat(" ", 1<<20))
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	code, stdout, _ := run(t.Context(), t, "--reference="+server(t, hour), "--test="+serve(t, endless), file(t, "up"))
	require.Equal(t, exitDiffers, code)
	require.Contains(t, stdout, "the answer has more than 64 MiB")
}

// A server that hangs fails after the timeout, and holds up no other query.
func TestRun_Timeout(t *testing.T) {
	hung := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "up" {
			<-r.Context().Done()
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	})
	code, stdout, _ := run(t.Context(), t, "--timeout=50ms", "--concurrency=1", "--instant", "--reference="+serve(t, always(200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)), "--test="+serve(t, hung), file(t, "up\nx\n"))
	require.Equal(t, exitDiffers, code)
	require.Contains(t, stdout, "context deadline exceeded")
	require.Contains(t, stdout, "1 test failed")
}

// Interrupted, it tells what it knows.
func TestRun_Interrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var asked atomic.Int32
	test := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.FormValue("query") == "c" { // reading it lets the server see that the client leaves
			interrupt()
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	})
	code, stdout, _ := run(ctx, t, "--concurrency=1", "--reference="+serve(t, always(200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)), "--test="+serve(t, test), file(t, "a\nb\nc\nd\n"))
	require.Equal(t, exitUnknown, code)
	require.Contains(t, stdout, "\ninterrupted, 2 of 4 queries: 2 equal; ")
	require.EqualValues(t, 3, asked.Load())
}

func TestRun_Concurrency(t *testing.T) {
	var running, most atomic.Int32
	both := make(chan struct{}, 8)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		both <- struct{}{}
		for len(both) < 3 && r.Context().Err() == nil { // until three have come
			time.Sleep(0)
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	})
	code, stdout, _ := run(t.Context(), t, "--concurrency=3", "--reference="+serve(t, always(200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)), "--test="+serve(t, h), file(t, "a\nb\nc\nd\ne\n"))
	require.Equal(t, exitEqual, code, stdout)
	require.EqualValues(t, 3, most.Load())
}

// Authentication and headers are those of the file, at both servers.
func TestRun_HTTPConfig(t *testing.T) {
	var seen atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user == "u" && password == "hunter2" && r.Header.Get("X-Scope-OrgID") == "a" {
			seen.Add(1)
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	})
	cfg := file(t, "basic_auth: {username: u, password: hunter2}\nhttp_headers: {X-Scope-OrgID: {values: [a]}}\n")
	code, stdout, stderr := run(t.Context(), t, "--http.config.file="+cfg, "--reference="+serve(t, h), "--test="+serve(t, h), file(t, "up"))
	require.Equal(t, exitEqual, code, stdout+stderr)
	require.EqualValues(t, 2, seen.Load())
}

func TestRun_CannotBegin(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := run(t.Context(), t, args...)
		require.Equal(t, exitUnknown, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.NotContains(t, stderr, "hunter2")
	}
	ok := []string{"--reference=http://a", "--test=http://b"}
	queries := file(t, "up")
	f("--reference: not the URL of an http or https server", "--reference=a:9090", "--test=http://b", queries)
	f("--test: not the URL", "--reference=http://a", "--test=ftp://u:hunter2@b", queries)
	f("--concurrency: must be at least 1", append(ok, "--concurrency=0", queries)...)
	f("--timeout: must be longer than 0s", append(ok, "--timeout=0s", queries)...)
	f("--start is after --end", append(ok, "--start=100", "--end=50", queries)...)
	f("--start=x: not a time", append(ok, "--start=x", queries)...)
	f("--end=1e300: not a time", append(ok, "--end=1e300", queries)...)
	f("--step=0: not a duration", append(ok, "--step=0", queries)...)
	f("--step=1ms: a range of more than 11000 steps", append(ok, "--step=1ms", queries)...)
	f("no such file", append(ok, "none")...)
	f("--http.config.file: ", append(ok, "--http.config.file="+file(t, "a: ["), queries)...)
	f("not a dashboard of Grafana", append(ok, file(t, `{"panels": 1}`))...)
}

func TestRun_NothingToAsk(t *testing.T) {
	code, stdout, _ := run(t.Context(), t, "--reference=http://a", "--test=http://b", file(t, "# nothing\n"))
	require.Equal(t, exitUnknown, code)
	require.Contains(t, stdout, "there is no query to ask, 0 skipped")
}

// On a terminal there is a line that tells how far it is.
func TestProgress(t *testing.T) {
	var out strings.Builder
	p := &progressLine{out: &out, all: 3}
	p.asked(result{verdict: isEqual})
	p.asked(result{verdict: isDifferent})
	p.end()
	require.Equal(t, "\r1 of 3 queries asked, 0 not equal \r2 of 3 queries asked, 1 not equal \r\033[K", out.String())
	require.Equal(t, io.Discard, progressOn(&out))
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, io.Discard, progressOn(f))
}
