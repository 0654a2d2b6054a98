package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// processes are the processes that have answered at the URL of a replica, by when they started. One
// that answers again after another one has not been restarted: a load balancer, or a Service of
// Kubernetes, stands before several servers, whose data differ. It is safe for concurrent use.
type processes struct {
	mtx  sync.Mutex // guards the fields below
	seen []string   // the last one last, each once
	// returned is when a process was last seen that had answered before another one.
	returned time.Time
}

const (
	// mostProcesses bounds how many processes are remembered.
	mostProcesses = 16
	// doubtfulFor is how long a replica is doubted after processes have taken turns.
	doubtfulFor = time.Hour
	// changedProcesses is how often a replica is asked which process answers if it is not the one
	// that answered last.
	changedProcesses = 4
)

// observe records a process, and reports whether it is another one than the last.
func (p *processes) observe(started string, now time.Time) (changed bool) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	i := slices.Index(p.seen, started)
	switch {
	case i >= 0 && i == len(p.seen)-1:
		return false
	case i >= 0:
		p.seen = slices.Delete(p.seen, i, i+1)
		p.returned = now
	case len(p.seen) == mostProcesses:
		p.seen = slices.Delete(p.seen, 0, 1)
	}
	p.seen = append(p.seen, started)
	return true
}

// takeTurns reports whether processes have taken turns lately.
func (p *processes) takeTurns(now time.Time) bool {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	return !p.returned.IsZero() && now.Sub(p.returned) < doubtfulFor
}

// checkProcess finds out whether several servers take turns at the URL of a Prometheus. Stores and
// other oneproms may well be several processes with the same data.
func (r *Replica) checkProcess(ctx context.Context, p *Profile) {
	if p.Kind != transport.Prometheus {
		return
	}
	for asked, most := 0, 1; asked < most; asked++ {
		started, err := p.Client.StartedByOwnConnection(ctx)
		if err != nil || started == "" {
			break // it does not say
		}
		if r.processes.observe(started, r.now()) && !r.processes.takeTurns(r.now()) {
			most = changedProcesses
		}
	}
	if r.processes.takeTurns(r.now()) {
		p.TakesTurns = "several servers take turns at this URL, and each has missed something else: name each of them as a target, not what stands before them"
		p.NoPushdown = pushdown.Refusal{Why: "several servers take turns at its URL", Reason: pushdown.Balancer}
		p.findings = append(p.findings, p.TakesTurns)
	}
}
