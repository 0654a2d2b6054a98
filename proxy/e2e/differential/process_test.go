package differential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// process is a server of a changing world. What upstream's handlers do not know, as they serve
// many worlds, it answers itself as a Prometheus would: when it was started, its blocks or its
// oldest sample, and its rules.
type process struct {
	kind   kind
	late   bool // it takes late samples, and says so
	server *httptest.Server
	now    atomic.Pointer[condition]
}

// condition is what a process is at one moment. It is a value: a change makes another one.
type condition struct {
	db       *tsdb.DB
	started  time.Time
	external int // of externalLabels
	release  int // 2 or 3
	rule     bool
	api      http.Handler
}

// ServeHTTP implements http.Handler.
func (p *process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := p.now.Load()
	data := func(v any) {
		backendtest.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": v})
	}
	switch r.URL.Path {
	case "/api/v1/status/runtimeinfo":
		data(map[string]any{"startTime": c.started, "reloadConfigSuccess": true})
	case "/api/v1/status/tsdb/blocks":
		if c.release == 2 {
			http.NotFound(w, r)
			return
		}
		data(map[string]any{"blocks": append([]tsdb.BlockMeta{}, c.db.BlockMetas()...)})
	case "/metrics":
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "prometheus_tsdb_lowest_timestamp %d\n", c.lowest())
	case "/api/v1/status/config":
		c.configuration(w, r, p.late)
	case "/api/v1/rules":
		rules := []any{}
		if c.rule {
			rules = append(rules, map[string]any{"name": recorded, "type": "recording", "query": "sum by (job) (reqs_total)", "health": "ok"})
		}
		data(map[string]any{"groups": []any{map[string]any{"name": "g", "file": "g", "interval": 15, "rules": rules}}})
	default:
		c.api.ServeHTTP(w, r)
	}
}

// configuration shows the configuration of a server, which may take late samples.
func (c *condition) configuration(w http.ResponseWriter, r *http.Request, late bool) {
	rec := httptest.NewRecorder()
	c.api.ServeHTTP(rec, r)
	var told struct{ Data struct{ YAML string } }
	if !late || json.Unmarshal(rec.Body.Bytes(), &told) != nil {
		c.api.ServeHTTP(w, r)
		return
	}
	yaml := told.Data.YAML + "\nstorage:\n  tsdb:\n    out_of_order_time_window: 1d\n"
	backendtest.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": map[string]any{"yaml": yaml}})
}

// lowest is the time of the oldest sample (ms).
func (c *condition) lowest() int64 {
	t := c.db.Head().MinTime()
	for _, b := range c.db.BlockMetas() {
		t = min(t, b.MinTime)
	}
	return t
}

// tombstones are how many the blocks have, each block for itself.
func (c *condition) tombstones() (list []uint64) {
	for _, b := range c.db.BlockMetas() {
		list = append(list, b.Stats.NumTombstones)
	}
	return list
}

// addProcess starts server n of a changing world.
func (run *running) addProcess(n int, dir string) (address string, err error) {
	w := run.now
	k := w.servers[n].kind
	k.early = w.early
	p := &process{kind: k, late: w.hasLate()}
	c := condition{release: 3, rule: !w.unruled}
	if k.external {
		c.external = 1
	}
	if err := run.become(p, n, c, dir); err != nil {
		return "", err
	}
	p.server = run.listen(p)
	run.processes = append(run.processes, p)
	return p.server.Listener.Addr().String(), nil
}

// become makes a condition that of process n. It has new files unless it has a storage.
func (run *running) become(p *process, n int, c condition, dir string) (err error) {
	if c.db == nil {
		run.started++
		if c.db, err = run.open(run.now, filepath.Join(dir, fmt.Sprintf("%d-%d", n, run.started)), n); err != nil {
			return err
		}
	}
	if c.started.IsZero() {
		run.started++
		c.started = run.time().Add(time.Duration(run.started)).UTC() // no two are the same
	}
	c.api = over(run.lab.handler(serverKind{kind: p.kind, external: c.external, old: c.release == 2}), c.db)
	p.now.Store(&c)
	return nil
}

// time is the clock of the world.
func (run *running) time() time.Time { return time.UnixMilli(run.clock.Load()) }

const (
	// seenSoon is how long (ms) a change stays unseen at most that a server tells when it is
	// asked. See docs/fidelity.md.
	seenSoon = minute
	// between is the time (ms) from one question to the next.
	between = 5 * second
)

// seenByCounts is how long (ms) a change of samples from a time on stays unseen at most that only
// the counts of series show. See docs/fidelity.md.
func (run *running) seenByCounts(from int64) int64 {
	const old = 6 * 60 * minute // it may be in a slice of two hours that is eight hours old
	if from < run.clock.Load()-old {
		return evidence.OldCountAge
	}
	return evidence.CountAge
}

// happen has changes happen, and returns how long (ms) they may stay unseen.
func (run *running) happen(changes []change) (unseen int64, err error) {
	for i := range changes {
		n, err := run.change(&changes[i])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", &changes[i], err)
		}
		unseen = max(unseen, n)
	}
	return unseen, nil
}

func (run *running) change(c *change) (unseen int64, err error) {
	w, p := run.now, run.processes[c.server]
	before := *p.now.Load()
	blocks, tombstones, lowest := len(before.db.BlockMetas()), before.tombstones(), before.lowest()
	after := before
	if c.external != 0 {
		after.external = c.external - 1
	}
	if c.release != 0 {
		after.release = c.release
	}
	if c.rules != 0 {
		after.rule = c.rules > 0
		unseen = seenSoon
	}
	if c.restored {
		w.restore(c.server, run.first)
		after.db = nil
	}
	if c.lost != nil {
		if c.deleted {
			err = run.delete(before.db, c.lost)
		} else {
			after.db = nil
		}
		if err := errors.Join(err, w.lose(c.server, c.lost)); err != nil {
			return 0, err
		}
	}
	if c.restart {
		after.started = time.Time{}
	}
	if err := run.become(p, c.server, after, run.dir); err != nil {
		return 0, err
	}
	after = *p.now.Load()
	if c.late != 0 {
		if err := run.arrive(c, after.db); err != nil {
			return 0, err
		}
		unseen = run.seenByCounts(run.first.start)
	}
	if c.restart {
		p.server.CloseClientConnections()
		return 0, nil
	}
	if c.lost != nil {
		unseen = run.seenByCounts(max(c.lost.from, run.first.start))
		told := after.lowest() > lowest
		if after.release == 3 {
			told = len(after.db.BlockMetas()) < blocks || c.deleted && !slices.Equal(tombstones, after.tombstones())
		}
		if told {
			unseen = seenSoon
		}
	}
	return unseen, nil
}

// delete deletes series as the admin API does.
func (run *running) delete(db *tsdb.DB, l *loss) error {
	w := run.now
	for _, s := range w.series {
		if !l.of(&s) {
			continue
		}
		var ms []*labels.Matcher
		without(s.labels, "shard").Range(func(l labels.Label) {
			ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		})
		if err := db.Delete(context.Background(), l.from, l.to-1, ms...); err != nil {
			return err
		}
	}
	return nil
}

// arrive appends late samples, out of order, and has the truth have them.
func (run *running) arrive(c *change, db *tsdb.DB) error {
	w := run.now
	app := db.AppenderV2(context.Background())
	for i := range w.series {
		s := &w.series[i]
		come := func(p *sample) bool { return p.late == c.late }
		if err := w.append(app, s, w.labelsAt(s, c.copy), come); err != nil {
			return errors.Join(err, app.Rollback())
		}
		for j := range s.samples {
			if p := &s.samples[j]; come(p) {
				p.late, p.held = 0, 1<<c.copy
			}
		}
	}
	if err := app.Commit(); err != nil {
		return err
	}
	return run.openTruth()
}

// play has an event happen. Of a question whose answer is judged, it returns the outcome.
func (run *running) play(e *event) (o outcome, err error) {
	if len(e.changes) == 0 {
		if err := run.pass(between); err != nil {
			return o, err
		}
		return run.compare(e.question)
	}
	unseen, err := run.happen(e.changes)
	if err != nil {
		return o, err
	}
	if e.peek != nil {
		_, _, _ = run.askOneprom(*e.peek) // whatever it is
	}
	return o, run.pass(unseen)
}

// replay has all events of the script happen, without a judgment.
func (run *running) replay(q question) error {
	for i := range run.first.script {
		e := &run.first.script[i]
		if len(e.changes) > 0 {
			if _, err := run.play(e); err != nil {
				return err
			}
			continue
		}
		if err := run.pass(between); err != nil {
			return err
		}
		asked := e.question
		if e.same {
			asked = q
		}
		_, _, _ = run.askOneprom(asked)
	}
	if len(run.first.script) == 0 {
		return nil
	}
	return run.pass(between)
}

// pass lets time pass (ms), as far as oneprom is concerned, and waits until it has looked
// after the servers as it does in that time.
func (run *running) pass(ms int64) error {
	if !run.first.changing {
		return nil
	}
	now := run.clock.Add(ms)
	const every = 30 * second
	if now-run.ticked < every {
		return nil
	}
	run.ticked = now
	server, err := run.lab.serve(run)
	if err != nil {
		return err
	}
	select {
	case run.ticks <- run.time():
	case <-time.After(time.Minute):
		return errors.New("oneprom does not look after its replicas")
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		done, err := run.probed("http://"+server.Addr(), now-replica.ProfileAge.Milliseconds())
		if done || err != nil {
			return err
		}
	}
	return errors.New("oneprom does not probe its replicas")
}

// probed reports whether all replicas have been probed after a time (ms).
func (run *running) probed(url string, since int64) (bool, error) {
	resp, err := run.lab.client.Get(url + "/api/v1/status/groups")
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var status struct {
		Data []struct {
			Replicas []replica.Status
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return false, err
	}
	for _, g := range status.Data {
		for _, r := range g.Replicas {
			if r.LastProbe == nil || r.LastProbe.UnixMilli() <= since {
				return false, nil
			}
		}
	}
	return len(status.Data) > 0, nil
}

// labelsAt are the labels that a copy of a series has in its server.
func (w *world) labelsAt(s *series, holder int) labels.Labels {
	l := without(s.labels, "shard")
	if r := w.copies[holder].replica; r != "" {
		l = with(l, "replica", r)
	}
	return l
}
