package ruler

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/proxy/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drip is a body of which a byte comes each second.
type drip struct{ ctx context.Context }

func (d drip) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		return copy(p, " "), nil
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}

func (d drip) Close() error { return nil }

// alertmanagers are some without a network: what their name begins with is how they answer.
type alertmanagers struct {
	mtx   sync.Mutex
	taken map[string]int // alerts by host
}

func (a *alertmanagers) answer(_ *http.Client, req *http.Request) (*http.Response, error) {
	kind, _, _ := strings.Cut(req.URL.Hostname(), "-")
	if kind == "hangs" {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	var alerts []json.RawMessage
	if err := json.NewDecoder(req.Body).Decode(&alerts); err != nil {
		return nil, err
	}
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.taken[req.URL.Hostname()] += len(alerts)
	resp := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}
	if kind == "drips" {
		resp.Body = drip{req.Context()}
	}
	return resp, nil
}

func (a *alertmanagers) took(host string) int {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	return a.taken[host]
}

// alerting is a configuration with these Alertmanagers.
func alerting(t *testing.T, hosts ...string) *upstream.Config {
	t.Helper()
	cfg := &config.Config{}
	text := "alertmanagers:\n"
	for _, host := range hosts {
		text += "- static_configs: [{targets: [" + host + "]}]\n"
	}
	require.NoError(t, yaml.Unmarshal([]byte(text), &cfg.Alerting))
	return cfg.Upstream()
}

// send sends many alerts, as rules do.
func send(to *notifier.Manager, n int) {
	for i := range n {
		to.Send(&notifier.Alert{Labels: labels.FromStrings("alertname", "a", "i", strconv.Itoa(i))})
	}
}

const manyAlerts = 9_000 // 36 batches, of which each may take ten seconds

// within fails if f takes longer, of the bubble's time.
func within(t *testing.T, most time.Duration, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	require.LessOrEqual(t, time.Since(began), most, what)
}

// bubble runs a test in one. While a lock is held, the time of the bubble stands still.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer time.AfterFunc(time.Minute, func() { panic("a lock is held for as long as an Alertmanager hangs") }).Stop()
	synctest.Test(t, f)
}

// lost is how many alerts were dropped.
func lost(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "prometheus_notifications_dropped_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestAlertmanager_ThatHangsHoldsNobodyUp: rules, reloads, metrics, the other Alertmanagers and the stop go on.
func TestAlertmanager_ThatHangsHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg, ams := prometheus.NewRegistry(), &alertmanagers{taken: map[string]int{}}
		r, err := New(Options{
			Flags:  Flags{MaxConcurrentEvals: 1, NotificationQueueCapacity: 10_000, DrainNotificationQueue: true, AgentPath: t.TempDir()},
			Logger: slog.New(slog.DiscardHandler), Registerer: reg, Features: features.NewRegistry(), Parser: parser.NewParser(parser.Options{}), ExternalURL: &url.URL{},
		})
		require.NoError(t, err)
		defer func() { _ = r.Stop(t.Context()) }()
		r.courier.send = ams.answer
		require.NoError(t, r.send(alerting(t, "good", "hangs-1", "hangs-2", "drips")))
		time.Sleep(2 * discoveryPace)
		within(t, 0, "alerts", func() { send(r.notifier, manyAlerts) })
		time.Sleep(time.Second)
		require.Equal(t, manyAlerts, ams.took("good"))
		time.Sleep(time.Minute)
		require.Equal(t, manyAlerts, ams.took("drips"))
		require.Positive(t, lost(t, reg))
		within(t, 0, "the reload", func() { require.NoError(t, r.send(alerting(t, "good", "hangs-2"))) })
		within(t, 0, "alerts after it", func() { send(r.notifier, 1) })
		time.Sleep(time.Second)
		require.Equal(t, manyAlerts+1, ams.took("good"))
		within(t, time.Second, "the stop", func() { require.NoError(t, r.Stop(t.Context())) })
	})
}

// TestAlertmanager_ThatHangsAndGoes is one that discovery finds no more.
func TestAlertmanager_ThatHangsAndGoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg, ams, c := prometheus.NewRegistry(), &alertmanagers{taken: map[string]int{}}, newCourier()
		c.send = ams.answer
		n := notifier.NewManager(&notifier.Options{QueueCapacity: 10_000, DrainOnShutdown: true, Registerer: reg, Do: c.do}, model.UTF8Validation, slog.New(slog.DiscardHandler))
		require.NoError(t, n.ApplyConfig(alerting(t, "unused")))
		ctx, cancel := context.WithCancel(t.Context())
		in, out := make(chan map[string][]*targetgroup.Group), make(chan map[string][]*targetgroup.Group)
		go c.pass(ctx, in, out)
		go n.Run(out)
		find := func(hosts ...string) {
			tg := &targetgroup.Group{}
			for _, host := range hosts {
				tg.Targets = append(tg.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(host)})
			}
			in <- map[string][]*targetgroup.Group{"config-0": {tg}}
			synctest.Wait()
		}
		find("good", "hangs")
		send(n, manyAlerts)
		time.Sleep(time.Minute)
		find("good")
		within(t, 0, "alerts", func() { send(n, 1) })
		time.Sleep(time.Second)
		require.Equal(t, manyAlerts+1, ams.took("good"))
		cancel()
		n.Stop()
		c.close()
	})
}

// TestAlertmanager_Redirects: alerts, and what else the configuration sends, stay with the host that they are for, and a
// redirection that would lose them is a failure.
func TestAlertmanager_Redirects(t *testing.T) {
	var elsewhere, posts atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	f := func(status int, to, want string) {
		t.Helper()
		posts.Store(0)
		am := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/real" {
				if n, _ := io.Copy(io.Discard, r.Body); r.Method == http.MethodPost && n > 0 {
					posts.Add(1)
				}
				return
			}
			http.Redirect(w, r, to, status)
		}))
		defer am.Close()
		c := newCourier()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, am.URL+"/api/v2/alerts", strings.NewReader("[]"))
		require.NoError(t, err)
		req.Header.Set("X-Scope-OrgID", "secret")
		resp, err := c.do(t.Context(), am.Client(), req)
		if want == "" {
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.EqualValues(t, 1, posts.Load())
			return
		}
		require.ErrorContains(t, err, want)
		require.Zero(t, posts.Load())
	}
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther} {
		f(status, "/real", fmt.Sprintf("redirected with status %d, which loses the alerts: set `scheme` and `path_prefix` to where it leads, http://127.0.0.1:", status))
	}
	for _, status := range []int{http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		f(status, "/real", "")
		f(status, other.URL+"/real", "redirected to another host, "+strings.TrimPrefix(other.URL, "http://")+": name that one as the Alertmanager")
		f(status, "http://169.254.169.254/latest/meta-data", "redirected to another host, 169.254.169.254: name that one as the Alertmanager")
	}
	require.Zero(t, elsewhere.Load())
}
