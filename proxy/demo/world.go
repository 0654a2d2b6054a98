package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

const (
	interval = 15 * time.Second // between scrapes
	history  = 6 * time.Hour    // what lies behind when the demo starts
	kept     = 2 * time.Hour    // what the replicas keep of it
	archived = 90 * time.Minute // older than this, oneprom asks the archive too
)

// alone is the replica whose answers are compared with oneprom's.
const alone = "eu-a"

// world is all servers, and what they have seen until now.
type world struct {
	servers []*server // the truth is the last
	truth   *server
	end     time.Time // the scrape at which the history ends and live begins
	last    time.Time // the last scrape
}

// newWorld starts the servers, their files below dir, and lets them see the
// history up to now. After an error nothing is left running.
func newWorld(ctx context.Context, dir string, now func() time.Time) (*world, error) {
	w := &world{end: now().Truncate(interval)}
	w.last = w.end.Add(-history)
	if err := w.fill(ctx, dir, now); err != nil {
		return nil, errors.Join(err, w.stop(context.WithoutCancel(ctx)))
	}
	return w, nil
}

// fill starts the servers one by one and lets them see the history.
func (w *world) fill(ctx context.Context, dir string, now func() time.Time) error {
	for _, p := range plans(w.end) {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := startServer(p, filepath.Join(dir, p.name), w.end, now)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		w.servers = append(w.servers, s)
	}
	w.truth = w.servers[len(w.servers)-1]
	return w.advance(ctx, w.end)
}

// plans are the servers of a world whose history ends at end.
func plans(end time.Time) []plan {
	ago := func(from, to time.Duration) span { return span{end.Add(-from), end.Add(-to)} }
	replica := func(region, name string, p plan) plan {
		p.name, p.regions, p.keep = region+"-"+name, []string{region}, kept
		p.external = labels.FromStrings("region", region, "replica", name)
		return p
	}
	return []plan{
		replica("eu", "a", plan{
			says:    "was away for 20 min, lost a scrape, and cannot reach node-2",
			away:    []span{ago(85*time.Minute, 65*time.Minute)},
			lost:    []time.Time{end.Add(-100 * time.Minute)},
			without: "eu-node-2",
		}),
		replica("eu", "b", plan{
			says:  "scrapes 7.5 s after eu-a; was away for 15 min at another time",
			shift: interval / 2,
			away:  []span{ago(45*time.Minute, 30*time.Minute)},
		}),
		replica("us", "a", plan{
			says: "lost two single scrapes",
			lost: []time.Time{end.Add(-72 * time.Minute), end.Add(-97 * time.Minute)},
		}),
		replica("us", "b", plan{
			says:  "scrapes 7.5 s after us-a; lost a scrape",
			shift: interval / 2,
			lost:  []time.Time{end.Add(-20 * time.Minute)},
		}),
		{
			name: "archive", regions: regions, regionLabel: true, remoteRead: backendtest.NoRemoteRead,
			says: "has everything, no remote read, and region in its own data",
		},
		{
			name: "truth", regions: regions, regionLabel: true,
			says: "was never away; oneprom does not know it",
		},
	}
}

// server returns the server of a name, which must be one of the world's.
func (w *world) server(name string) *server {
	for _, s := range w.servers {
		if s.name == name {
			return s
		}
	}
	panic("BUG: no server " + name)
}

// advance lets all servers see what happened after the last scrape and up to now.
// It ends early, between scrapes, if ctx does. It must not be called concurrently.
func (w *world) advance(ctx context.Context, now time.Time) error {
	errs := make([]error, len(w.servers))
	var wg sync.WaitGroup
	for i, s := range w.servers {
		wg.Go(func() {
			for t := w.last.Add(interval); !t.After(now) && errs[i] == nil; t = t.Add(interval) {
				if errs[i] = ctx.Err(); errs[i] == nil {
					errs[i] = s.scrape(t)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if t := now.Truncate(interval); t.After(w.last) {
		w.last = t
	}
	return nil
}

// stop ends all servers; requests under way have until ctx ends.
func (w *world) stop(ctx context.Context) error {
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, s.stop(ctx))
	}
	return errors.Join(errs...)
}

// describe writes a line for each server.
func (w *world) describe(out io.Writer) {
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, s := range w.servers {
		keeps := "keeps all"
		if s.keep > 0 {
			keeps = "keeps " + short(s.keep)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", s.name, s.url(), keeps, s.says)
	}
	_ = tw.Flush() // out is a buffer
}

// config is the configuration file of a oneprom in front of the world.
func (w *world) config() string {
	host := func(name string) string { return w.server(name).address() }
	return fmt.Sprintf(`server_groups:
  - name: eu
    labels: {region: eu}
    replica_labels: [replica]
    static_configs: [{targets: ['%s', '%s']}]
  - name: us
    labels: {region: us}
    replica_labels: [replica]
    static_configs: [{targets: ['%s', '%s']}]
  - name: archive
    intrinsic_labels: [region]
    time_range: {min_age: %s}
    remote_read: never
    static_configs: [{targets: ['%s']}]
`, host("eu-a"), host("eu-b"), host("us-a"), host("us-b"), short(archived), host("archive"))
}
