package toxics

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// toxic is a fault with its name in the table.
type toxic struct {
	name string
	// of is the fault of a server.
	of func(w *world, server string) fault.Fault
	// once tells that the short run has it, too.
	once bool
}

func always(f fault.Fault) func(*world, string) fault.Fault {
	return func(*world, string) fault.Fault { return f }
}

func says(status int, contentType, body string, header ...string) func(*world, string) fault.Fault {
	h := http.Header{"Content-Type": {contentType}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return always(fault.Says(status, h, body))
}

const jsonType = "application/json"

func toxics() []toxic {
	return []toxic{
		{"200 ms late", always(fault.Latency(200 * time.Millisecond)), false},
		{"0 to 400 ms late", always(fault.Jitter(0, 400*time.Millisecond)), false},
		{"a byte every 20 ms", always(fault.Drip(20 * time.Millisecond)), false},
		{"hangs", always(fault.Hang()), true},
		{"hangs in the body", always(fault.HangInBody()), false},
		{"refuses connections", always(fault.Refuse()), true},
		{"resets connections", always(fault.Reset()), false},
		{"resets in the body", always(fault.ResetInBody()), false},
		{"body without its end", always(fault.Truncate()), true},
		{"garbage", always(fault.Garbage()), false},
		{"200 with HTML", says(200, "text/html", "<html>welcome</html>"), false},
		{"401", says(401, jsonType, `{"message":"no"}`), false},
		{"429 with Retry-After", says(429, jsonType, `{}`, "Retry-After", "1"), false},
		{"500", says(500, "text/plain", "oops"), false},
		{"502", says(502, "text/html", "<html>bad gateway</html>"), false},
		{"503", says(503, jsonType, `{"status":"error","errorType":"unavailable","error":"shutting down"}`), true},
		{"clock 3 min ahead", func(w *world, server string) fault.Fault { return fault.Clock(wrongBy, w.shifted[server]) }, false},
	}
}

// scope is which servers are in the fault.
type scope struct {
	name  string
	holds func(z zone, replica string) bool
}

var scopes = []scope{
	{"one replica", func(z zone, replica string) bool { return z.name == "us-east" && replica == "a" }},
	{"both replicas", func(z zone, _ string) bool { return z.name == "us-east" }},
	{"a region", func(z zone, _ string) bool { return z.region == "us" }},
	{"all", func(zone, string) bool { return true }},
}

// within lists the servers of a scope, and what ails there.
func (s scope) within(r *rig, clocks bool) (servers []string, ails ailment) {
	ails.clocks = clocks
	for _, z := range zones {
		for _, replica := range []string{"a", "b"} {
			if !s.holds(z, replica) {
				continue
			}
			name := z.name + "-" + replica
			servers = append(servers, name)
			ails.servers = append(ails.servers, r.proxies[name].Addr())
			if !slices.Contains(ails.zones, z.name) {
				ails.zones = append(ails.zones, z.name)
			}
		}
	}
	return servers, ails
}

// phase is how far a fault has come.
type phase int

const (
	cold       phase = iota // the first answers after it began
	between                 // enough of them for anybody to learn of it
	warm                    // after these
	recovering              // from its end until all is right again
	phases
)

// betweenRounds and warmRounds are how often all kinds are asked in a phase.
const (
	betweenRounds = 4
	warmRounds    = 3
	// recovery is how long it may take until all is right again.
	recovery = 30 * time.Second
)

// cell is a fault at some servers, and what became of it.
type cell struct {
	toxic toxic
	scope scope

	answers   [phases][]answered
	recovered time.Duration // from the end of the fault
}

func (c *cell) name() string { return c.toxic.name + "/" + c.scope.name }

// try lets the fault come and go.
func (c *cell) try(t *testing.T, w *world) {
	r := newRig(t, w)
	r.start(t)
	round := 0
	ask := func(ctx context.Context, ails ailment) []answered {
		round++
		return r.askAll(ctx, w, round, ails)
	}
	r.settle(t, w)
	servers, ails := c.scope.within(r, strings.HasPrefix(c.toxic.name, "clock"))
	for _, server := range servers {
		require.NoError(t, r.proxies[server].Set(c.toxic.of(w, server)))
	}
	for _, step := range []struct {
		phase  phase
		rounds int
	}{{cold, 1}, {between, betweenRounds}, {warm, warmRounds}} {
		for range step.rounds {
			c.answers[step.phase] = append(c.answers[step.phase], ask(t.Context(), ails)...)
		}
	}
	r.set(t, fault.Fault{}, servers)
	ended := time.Now()
	for {
		answers := ask(t.Context(), ails)
		c.answers[recovering] = append(c.answers[recovering], answers...)
		if allRight(answers) {
			break
		}
		if time.Since(ended) > recovery {
			require.Fail(t, "not right again", "%s: %s", answers[0].path, answers[0].body)
		}
		pause(t, 50*time.Millisecond)
	}
	c.recovered = time.Since(ended)
}

// pause is a short rest between two looks at something that takes time.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// outcomes are those of a phase, each once, the best first.
func (c *cell) outcomes(p phase) string {
	var list []string
	for _, o := range []outcome{right, labelled, failed, wrong} {
		if slices.ContainsFunc(c.answers[p], func(a answered) bool { return a.outcome == o }) {
			list = append(list, string(o))
		}
	}
	return strings.Join(list, ", ")
}

// TestToxics lets every fault come and go at one replica, at a pair, in a region and everywhere, and
// looks at every answer of every kind meanwhile.
func TestToxics(t *testing.T) {
	w := sharedWorld()
	var cells []*cell
	for _, x := range toxics() {
		for _, s := range scopes {
			if full || x.once && s.name != "all" {
				cells = append(cells, &cell{toxic: x, scope: s})
			}
		}
	}
	began := time.Now()
	t.Run("all", func(t *testing.T) {
		var wg sync.WaitGroup
		free := make(chan struct{}, atOnce)
		for _, c := range cells {
			free <- struct{}{}
			wg.Go(func() {
				defer func() { <-free }()
				t.Run(c.name(), func(t *testing.T) { c.try(t, w) })
			})
		}
		wg.Wait()
	})
	asked := 0
	for _, c := range cells {
		for p := range phases {
			for _, a := range c.answers[p] {
				asked++
				if a.outcome == wrong {
					t.Errorf("%s: %s after %s: %s", c.name(), a.path, a.after, a.why)
				}
			}
		}
	}
	table := matrixTable(cells)
	t.Logf("%d answers in %s\n%s", asked, time.Since(began).Round(time.Second), table)
	checkTable(t, "matrix", table)
}
