package recorder

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/redact"
)

// Patience is how long what was recorded may wait to be written before a target has stalled.
const Patience = 5 * time.Minute

// Stalled is a target of remote_write that has not taken what rules recorded Patience ago.
type Stalled struct {
	// Name and URL are as in upstream's metrics, without secrets.
	Name, URL string
	// Behind is how much older the last sample is that was written than the last that was recorded.
	Behind time.Duration
}

// progress is what is known of how far the targets have come. Times are Unix seconds, as in upstream's
// metrics.
type progress struct {
	mtx sync.Mutex
	// marks are the newest samples that had been recorded at some times, the first of them at least
	// Patience ago if there is such a one.
	marks   []mark
	targets map[target]*reached
}

type mark struct {
	at     time.Time
	newest int64
}

type target struct{ name, url string }

// reached is how far a target has come.
type reached struct {
	newest  int64
	dropped float64
}

// Stalled returns the targets that have stalled by some time, which grows from call to call. A target
// that is new is not asked for what was recorded before. What its write_relabel_configs drop it has
// taken, if nothing waits that they keep; upstream's timestamps do not have that.
func (r *Recorder) Stalled(at time.Time) (out []Stalled) {
	r.committing.Lock()
	newest := r.newest / 1000
	r.committing.Unlock()

	p := &r.progress
	p.mtx.Lock()
	defer p.mtx.Unlock()
	if n := len(p.marks); n == 0 || at.Sub(p.marks[n-1].at) >= Patience/60 {
		p.marks = append(p.marks, mark{at, newest})
	}
	for len(p.marks) > 1 && at.Sub(p.marks[1].at) >= Patience {
		p.marks = p.marks[1:]
	}
	due := int64(0)
	if at.Sub(p.marks[0].at) >= Patience {
		due = p.marks[0].newest
	}
	now := r.queues()
	for key := range p.targets {
		if _, there := now[key]; !there {
			delete(p.targets, key)
		}
	}
	for key, q := range now {
		last := p.targets[key]
		if last == nil {
			last = &reached{newest: cmp.Or(newest, at.Unix()), dropped: q.dropped}
			p.targets[key] = last
		}
		last.newest = max(last.newest, int64(q.sent))
		if q.taken <= q.sent && q.dropped != last.dropped {
			last.newest, last.dropped = newest, q.dropped
		}
		if last.newest < due {
			out = append(out, Stalled{key.name, key.url, time.Duration(newest-last.newest) * time.Second})
		}
	}
	slices.SortFunc(out, func(a, b Stalled) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.URL, b.URL)) })
	return out
}

// queue is what upstream's metrics say of a target: the times of the newest samples that it has sent and
// that it has taken to send them, and the number of those that it was told to drop.
type queue struct{ sent, taken, dropped float64 }

func (r *Recorder) queues() map[target]queue {
	out := map[target]queue{}
	families, err := redact.Gatherer(r.remoteMetrics).Gather()
	if err != nil {
		r.logger.Debug("metrics of remote write cannot be read", "err", err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			ls := map[string]string{}
			for _, l := range m.GetLabel() {
				ls[l.GetName()] = l.GetValue()
			}
			key := target{ls["remote_name"], ls["url"]}
			q := out[key]
			switch f.GetName() {
			case "prometheus_remote_storage_queue_highest_sent_timestamp_seconds":
				q.sent = m.GetGauge().GetValue()
			case "prometheus_remote_storage_queue_highest_timestamp_seconds":
				q.taken = m.GetGauge().GetValue()
			case "prometheus_remote_storage_samples_dropped_total":
				if ls["reason"] == "dropped_series" {
					q.dropped = m.GetCounter().GetValue()
				}
			default:
				continue
			}
			out[key] = q
		}
	}
	return out
}
