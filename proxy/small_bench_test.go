package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// smallQueries are instant queries whose answers are small.
var smallQueries = map[string]string{
	"sum":  `sum(up)`,
	"by":   `sum by (job) (up)`,
	"rate": `sum by (job) (rate(http_requests_total{code="500"}[5m]))`,
}

// smallClients are the clients that ask at the same time.
const smallClients = 16

// BenchmarkSmall is what small instant queries cost, of which no two are equal: each has a time of its
// own. Two regions with two replicas each, and the clients, are in another process: processor time
// ("cpu-µs/op") and allocations are those of oneprom alone, and "requests/op" are those to the replicas.
// Beside it stands the least that can be done by hand: ask a replica of each region, and add up.
func BenchmarkSmall(b *testing.B) {
	w := startSmallWorld(b)
	s, _ := startedServer(b, w.config())
	byHand := httptest.NewServer(&adder{w.replicas[0], w.replicas[2]})
	b.Cleanup(func() { byHand.Close(); smallClient.CloseIdleConnections() })
	for name, text := range smallQueries {
		for _, front := range []struct{ name, url string }{{"oneprom", "http://" + s.Addr()}, {"by-hand", byHand.URL}} {
			b.Run(name+"/"+front.name, func(b *testing.B) {
				w.ask(b, front.url, text, 200) // probes, and gathers evidence
				before, cpu := w.asked(b), busy(b)
				b.ReportAllocs()
				b.ResetTimer()
				w.ask(b, front.url, text, b.N)
				b.StopTimer()
				b.ReportMetric(float64((busy(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(w.asked(b)-before)/float64(b.N), "requests/op")
			})
		}
	}
}

// busy is the processor time that this process has taken so far.
func busy(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// adder is the least that a proxy must do: it asks one replica of each region, and adds up what has the
// same labels.
type adder []string

type vectorAnswer struct {
	Status string `json:"status"`
	Data   struct {
		ResultType string         `json:"resultType"`
		Result     []vectorSample `json:"result"`
	} `json:"data"`
}

type vectorSample struct {
	Metric map[string]string  `json:"metric"`
	Value  [2]json.RawMessage `json:"value"`
}

var smallClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * smallClients}}

// vectorAt asks an instant query.
func vectorAt(ctx context.Context, server string, form url.Values) (out vectorAnswer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/api/v1/query?"+form.Encode(), nil)
	if err != nil {
		return out, err
	}
	resp, err := smallClient.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err = json.NewDecoder(resp.Body).Decode(&out); err == nil && (out.Status != "success" || len(out.Data.Result) == 0) {
		err = fmt.Errorf("status %q with %d series", out.Status, len(out.Data.Result))
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return out, err
}

// ServeHTTP implements http.Handler.
func (a *adder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	form := url.Values{"query": {r.FormValue("query")}, "time": {r.FormValue("time")}}
	answers := make([]vectorAnswer, len(*a))
	g, ctx := errgroup.WithContext(r.Context())
	for i, server := range *a {
		g.Go(func() (err error) {
			answers[i], err = vectorAt(ctx, server, form)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	sum := answers[0]
	known, values := map[uint64]int{}, []float64{}
	sum.Data.Result = nil
	for _, answer := range answers {
		for _, s := range answer.Data.Result {
			hash := labels.FromMap(s.Metric).Hash()
			v, err := strconv.ParseFloat(strings.Trim(string(s.Value[1]), `"`), 64)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			i, ok := known[hash]
			if !ok {
				i = len(values)
				known[hash] = i
				values, sum.Data.Result = append(values, 0), append(sum.Data.Result, s)
			}
			values[i] += v
		}
	}
	for i, v := range values {
		sum.Data.Result[i].Value[1] = json.RawMessage(strconv.Quote(strconv.FormatFloat(v, 'f', -1, 64)))
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(sum)
}

// smallWorld is the other process: replicas, and clients of them.
type smallWorld struct {
	replicas []string // URLs: two of eu, two of us
	control  string
}

const smallWorldEnv = "ONEPROM_BENCH_SMALL_WORLD"

func startSmallWorld(b *testing.B) *smallWorld {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSmallWorld$")
	cmd.Env, cmd.Stderr = append(os.Environ(), smallWorldEnv+"=1"), os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	urls := strings.Fields(line)
	require.Len(b, urls, 5)
	return &smallWorld{replicas: urls[1:], control: urls[0]}
}

// config is a configuration of the two regions.
func (w *smallWorld) config() string {
	text := "server_groups:\n"
	for i, region := range []string{"eu", "us"} {
		text += fmt.Sprintf("  - {name: %s, labels: {region: %s}, static_configs: [{targets: ['%s', '%s']}]}\n", region, region,
			strings.TrimPrefix(w.replicas[2*i], "http://"), strings.TrimPrefix(w.replicas[2*i+1], "http://"))
	}
	return text
}

// ask has the clients ask a server a query so often.
func (w *smallWorld) ask(b *testing.B, server, text string, times int) {
	b.Helper()
	resp, err := http.Get(w.control + "/ask?" + url.Values{"server": {server}, "query": {text}, "times": {strconv.Itoa(times)}}.Encode())
	require.NoError(b, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b, err)
	require.Equal(b, http.StatusOK, resp.StatusCode, string(body))
}

// asked is how many requests the replicas have got.
func (w *smallWorld) asked(b *testing.B) (n int64) {
	b.Helper()
	resp, err := http.Get(w.control + "/asked")
	require.NoError(b, err)
	defer resp.Body.Close()
	require.NoError(b, json.NewDecoder(resp.Body).Decode(&n))
	return n
}

// TestSmallWorld is the other process of BenchmarkSmall.
func TestSmallWorld(t *testing.T) {
	if os.Getenv(smallWorldEnv) == "" {
		t.Skip("it is a process of BenchmarkSmall")
	}
	stock := backendtest.EngineOpts(backendtest.NewParser())
	stock.EnableDelayedNameRemoval, stock.UseStartTimestamps = false, false
	engine := promql.NewEngine(stock)
	defer func() { require.NoError(t, engine.Close()) }()
	var asked atomic.Int64
	var urls []string
	for _, region := range []string{"eu", "us"} {
		for phase := range int64(2) {
			h := backendtest.NewHandler(backendtest.Options{Queryable: smallData(t, region, 7000*phase), Engine: engine})
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				h.ServeHTTP(w, r)
			}))
			defer s.Close()
			urls = append(urls, s.URL)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/asked", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(asked.Load()) })
	var latest atomic.Int64
	next := func() int64 { // ms; no two are equal
		for {
			before := latest.Load()
			if at := max(before+1, time.Now().UnixMilli()); latest.CompareAndSwap(before, at) {
				return at
			}
		}
	}
	mux.HandleFunc("/ask", func(w http.ResponseWriter, r *http.Request) {
		times, _ := strconv.ParseInt(r.FormValue("times"), 10, 64)
		var begun atomic.Int64
		g, ctx := errgroup.WithContext(r.Context())
		for range smallClients {
			g.Go(func() error {
				for begun.Add(1) <= times {
					at := next()
					form := url.Values{"query": {r.FormValue("query")}, "time": {fmt.Sprintf("%d.%03d", at/1000, at%1000)}}
					if _, err := vectorAt(ctx, r.FormValue("server"), form); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	control := httptest.NewServer(mux)
	defer control.Close()
	fmt.Println(control.URL, strings.Join(urls, " "))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark is over
	smallClient.CloseIdleConnections()
}

// smallData are scrapes of the last hour, and of the next 20 minutes, of 200 targets.
func smallData(t *testing.T, region string, phase int64) *teststorage.TestStorage {
	t.Helper()
	db := teststorage.New(t)
	now := time.Now().UnixMilli()
	begin := now/15_000*15_000 - 3600_000 + phase
	for at := begin; at < now+1200_000; at += 15_000 {
		app := db.Appender(t.Context())
		for i := range 200 {
			target := labels.NewBuilder(labels.EmptyLabels()).Set("instance", fmt.Sprintf("%s-%d", region, i)).Set("job", fmt.Sprintf("job-%d", i%5))
			_, err := app.Append(0, target.Set("__name__", "up").Labels(), at, 1)
			require.NoError(t, err)
			for _, code := range []string{"200", "500"} {
				_, err := app.Append(0, target.Set("__name__", "http_requests_total").Set("code", code).Labels(), at, float64((at-begin)/1000*int64(i+1)))
				require.NoError(t, err)
			}
		}
		require.NoError(t, app.Commit())
	}
	return db
}
