// Package replica is one server of a server group: it probes what the server is, and sends it
// requests unless its circuit breaker is open. Probing makes a Profile, which says how the
// server is asked best. A Registry makes the replicas, and keeps what outlives a reload.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Replica is one server of a group, with the results of its probes. It is safe for concurrent
// use.
type Replica struct {
	group    *config.Group
	Endpoint targets.Endpoint
	client   *transport.Client
	url      string // the base URL, without credentials
	now      func() time.Time
	life     *lifetime.Lifetime // probes end with it
	logger   *slog.Logger
	// rereading reads the external labels between two probes.
	rereading sharedRead
	features  []string // of PromQL that are enabled in oneprom, by Prometheus' names
	// Health is its circuit breaker, its slots and the latency of its responses.
	Health *health.Replica
	// Metrics count the requests to all replicas.
	Metrics *Metrics

	confirming chan struct{} // holds an element while Confirm asks the server
	processes  processes

	mtx          sync.Mutex    // guards the fields below
	probing      chan struct{} // closed when the running probe has ended; nil if none is running
	dataFindings []string      // what the data showed after the last probe
	profile      *Profile      // of the last probe that succeeded; nil if it is not valid any more
	lastProfile  *Profile      // of the last probe that succeeded, valid or not
	probeErr     error         // of the last probe, nil if it succeeded
	probedAt     time.Time     // end of the last probe
	unreached    bool          // it has never answered, and that was logged
	suspect      bool          // a request failed since the last probe
	lastErr      error         // of the last failed request
	lastErrAt    time.Time
	past         past                      // as the server told it last
	confirmed    int64                     // connections that were opened before it told when it was started
	generation   uint64                    // see Generation
	generationAt time.Time                 // when it began
	rewritten    time.Time                 // see Rewritten
	probes       int                       // that succeeded
	sighted      map[labelmap.Sighting]int // odd values that profiles did not know, with the number of the probe
}

// Offline returns a replica for explanations, which has a URL and must not be asked.
func Offline(cfg *config.Group, base *url.URL) *Replica {
	return &Replica{group: cfg, client: &transport.Client{Base: base}, url: base.Redacted()}
}

// Profile is what a probe found out about a server.
type Profile struct {
	transport.Identity
	Dialect transport.Dialect
	// Client sends requests in the dialect.
	Client *transport.Client
	// Method is how samples are fetched. methodReason is why no better one is used; "" if
	// there is none.
	Method       transport.Method
	methodReason string
	// NoPushdown is the reason why the server is not asked to evaluate; none if it may be asked.
	NoPushdown pushdown.Refusal
	// configured are the external labels of its configuration, nil if they are not
	// known; External are those that its remote read adds.
	configured, External map[string]string
	// Settling is how long after the time of a sample the server may still be about to get it.
	Settling  time.Duration
	explained *explained // labels in answers that are not external ones
	// findings are mistakes in the group's configuration that this server shows. Doubts are
	// those of them that make its answers doubtful.
	findings, Doubts []string

	// Spellings are how the server spells the numbers in its labels.
	Spellings *labelmap.Spellings
	spelledAt time.Time // when all its data was looked at for that

	probe  int // its number
	past   past
	opened int64 // connections that were opened before past was asked for
	// TakesTurns says that several servers take turns at the URL, so that an answer is one of
	// any of them; "" if they do not.
	TakesTurns string
}

const (
	// ProfileAge is how old a profile becomes before the replica is probed again. Refresh is called
	// twice in that time.
	ProfileAge = time.Minute
	// RefreshAge is how old Refresh finds a profile old enough. A probe takes some time, so that its
	// profile is some milliseconds younger than ProfileAge at a call, and too old at the next.
	RefreshAge = ProfileAge * 3 / 4
	// ProbeInterval is the shortest time between two probes of a replica that fails.
	ProbeInterval = time.Second
)

// URL is the base URL of the replica, without credentials.
func (r *Replica) URL() string { return r.url }

// Now returns the time of the registry's clock.
func (r *Replica) Now() time.Time { return r.now() }

// Run runs f in the background, with a context that ends with the registry's lifetime. It
// reports whether it did: it does not once that has ended.
func (r *Replica) Run(f func(context.Context)) bool { return r.life.Run(f) }

// Ready returns the profile of the replica. It probes first if there is none, or if requests
// have failed since. A profile that is merely old is renewed in the background, by Refresh.
func (r *Replica) Ready(ctx context.Context) (*Profile, error) {
	for {
		r.mtx.Lock()
		mayProbe := r.now().Sub(r.probedAt) >= ProbeInterval
		if r.profile != nil && (!r.suspect || !mayProbe) {
			p := r.profile
			r.mtx.Unlock()
			return p, nil
		}
		if r.profile == nil && r.probeErr != nil && !mayProbe {
			err := r.probeErr
			r.mtx.Unlock()
			return nil, err
		}
		wait := r.probing
		if wait == nil {
			wait = r.startProbe()
		}
		r.mtx.Unlock()
		if wait == nil {
			return nil, fmt.Errorf("%s: %w", r.URL(), lifetime.ErrEnded)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", r.URL(), context.Cause(ctx))
		}
	}
}

// Answered reports whether the replica has answered its last probe.
func (r *Replica) Answered() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.profile != nil && r.probeErr == nil
}

// CurrentProfile returns the profile that Ready would return without waiting; nil if Ready
// would wait.
func (r *Replica) CurrentProfile() *Profile {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.suspect && r.now().Sub(r.probedAt) >= ProbeInterval {
		return nil
	}
	return r.profile
}

// LastProfile returns what the last probe that succeeded has found out, valid or not; nil if none has.
func (r *Replica) LastProfile() *Profile {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.lastProfile
}

// startProbe starts a probe unless one is running, and returns a channel that is closed when it
// has ended. The probe does not end with the query that needs it, as others may wait for it too,
// but with the registry's lifetime; the channel is nil if that has ended. r.mtx is held.
func (r *Replica) startProbe() chan struct{} {
	if r.probing != nil {
		return r.probing
	}
	done := make(chan struct{})
	started := r.life.Run(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(r.group.Timeout), r.timeoutError())
		defer cancel()
		p, err := r.probe(ctx)
		r.probed(p, err)
		close(done)
		if err == nil {
			r.CheckData(ctx, p) // no query waits for this
		}
	})
	if !started {
		return nil
	}
	r.probing = done
	return done
}

// probed records the result of a probe.
func (r *Replica) probed(p *Profile, err error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.logPanic(err)
	r.logReach(p, err)
	r.probing, r.probedAt, r.probeErr = nil, r.now(), err
	if err == nil {
		r.logChange(r.lastProfile, p)
		r.comparePast(p)
		if last := r.lastProfile; last != nil && last.Identity == p.Identity {
			p.explained = last.explained
		}
		r.probes++
		p.probe = r.probes
		r.profile, r.lastProfile, r.suspect = p, p, false
		return
	}
	r.lastErr, r.lastErrAt = err, r.probedAt
	// If no request has failed, the profile stays valid: requests do not need the
	// endpoints that probes ask.
	if r.suspect {
		r.profile = nil
	}
}

// logReach logs that a server that has never answered is not reached, once, and when it answers;
// those that have answered before are a matter of their circuit breakers. r.mtx is held.
func (r *Replica) logReach(p *Profile, err error) {
	switch {
	case err == nil && r.unreached:
		r.unreached = false
		r.logger.Info("the server answers now", "url", r.URL())
	case err != nil && r.lastProfile == nil && !r.unreached && !errors.Is(err, context.Canceled):
		r.unreached = true
		r.logger.Warn("the server cannot be used; this is not repeated until it can", "url", r.URL(), "err", err)
	}
	if err != nil {
		r.logger.Debug("probe failed", "url", r.URL(), "err", err)
	} else {
		r.logger.Debug("probe succeeded", "url", r.URL(), "server", p.String(), "transport", p.Method, "no_pushdown", p.NoPushdown)
	}
}

// logChange logs that another server answers at the URL, and the findings that are new.
func (r *Replica) logChange(before, now *Profile) {
	switch {
	case before == nil:
		before = &Profile{}
	case before.String() != now.String():
		r.logger.Warn("a backend has changed", "url", r.URL(), "before", before.String(), "now", now.String())
	case !maps.Equal(before.External, now.External):
		r.logger.Info("the external labels of a backend have changed", "url", r.URL(), "before", before.External, "now", now.External)
	}
	r.logNewFindings(before.findings, now.findings)
}

// logNewFindings logs the findings of now that before does not have.
func (r *Replica) logNewFindings(before, now []string) {
	for _, f := range now {
		if !slices.Contains(before, f) {
			r.logger.Warn("finding", "url", r.URL(), "finding", f)
		}
	}
}

// recordDataFindings records and logs what the data showed, unless err says that it could not be
// read.
func (r *Replica) recordDataFindings(findings []string, err error) {
	if err != nil {
		r.logPanic(err)
		return
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.logNewFindings(r.dataFindings, findings)
	r.dataFindings = findings
}

// HasDataFindings reports whether the data has shown that the group's labels are wrong.
func (r *Replica) HasDataFindings() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return len(r.dataFindings) > 0
}

// Refresh starts a probe if the last one failed or is older than RefreshAge. The channel is
// closed when the running probe has ended; it is nil if none is running.
func (r *Replica) Refresh() <-chan struct{} {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	age := r.now().Sub(r.probedAt)
	if age >= RefreshAge || r.probeErr != nil && age >= ProbeInterval {
		return r.startProbe()
	}
	return r.probing
}

// timeoutError is the end of a request after the group's timeout.
type timeoutError struct{ after model.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("no answer within the group's timeout of %s", e.after)
}

func (r *Replica) timeoutError() error { return &timeoutError{r.group.Timeout} }

// failed records a failed request. After a failure that may mean that another server answers at
// the URL, the next request probes it.
func (r *Replica) failed(err error) {
	r.logPanic(err)
	class := transport.ClassOf(err)
	var refused credentialsError
	if class == "" || class == transport.ClassCanceled || errors.As(err, &refused) {
		return
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.lastErr, r.lastErrAt = err, r.now()
	switch class {
	case transport.ClassTransport, transport.ClassServer, transport.ClassContent:
		r.suspect = true
	}
}

// logPanic logs an error that is a bug.
func (r *Replica) logPanic(err error) {
	if bug, ok := errors.AsType[*guard.PanicError](err); ok {
		r.logger.Error("what a replica answered made oneprom panic", "url", r.URL(), "panic", bug.Value, "stack", string(bug.Stack))
	}
}

// Forget drops the profile, so that the next request probes at once.
func (r *Replica) Forget() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.profile, r.probeErr = nil, nil
}

// probe finds out the profile of the server.
func (r *Replica) probe(ctx context.Context) (_ *Profile, err error) {
	defer guard.Recover(&err)
	p, err := r.identify(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.readConfiguration(ctx, p); err != nil {
		return nil, err
	}
	if err := r.chooseMethod(ctx, p); err != nil {
		return nil, err
	}
	if err := r.checkPushdown(ctx, p); err != nil {
		return nil, err
	}
	r.compareLabels(p)
	r.readPast(ctx, p)
	r.checkForms(ctx, p)
	r.checkProcess(ctx, p)
	r.checkSpellings(ctx, p)
	return p, nil
}

// identify finds out kind, version and engine. It fails if the server cannot be reached, but not
// if the server does not show what it is.
func (r *Replica) identify(ctx context.Context) (*Profile, error) {
	p := &Profile{explained: newExplained()}
	id, err := r.client.Identify(ctx)
	if err != nil {
		return nil, err
	}
	p.Identity = id
	p.doubtIdentity(r.group.Kind)
	if kind := r.group.Kind; kind != "" && kind != id.Kind {
		if id.Kind != transport.UnknownKind {
			p.findings = append(p.findings, fmt.Sprintf("`kind: %s` is configured, but the backend says that it is %s: correct `kind` or remove it", kind, id))
		}
		p.Kind = kind
	}
	p.Dialect = transport.DialectOf(p.Kind, len(r.group.ReplicaLabels) > 0)
	p.Dialect.Current = p.IsCurrent()
	p.Client = r.client.As(p.Dialect)
	return p, nil
}

// chooseMethod finds out how samples are fetched best.
func (r *Replica) chooseMethod(ctx context.Context, p *Profile) error {
	p.Method = transport.QueryAPI
	if p.Dialect.Exports {
		err := p.Client.ProbeExport(ctx)
		if err == nil {
			p.Method = transport.ExportAPI
			return nil
		}
		if !Unreadable(err) {
			return err
		}
		p.methodReason = "no export API: " + err.Error()
	}
	if r.group.RemoteRead == config.RemoteReadNever {
		p.methodReason = "remote_read: never"
		return nil
	}
	method, err := p.Client.ProbeRead(ctx)
	if p.Dialect.RefusesPartialReads && transport.ClassOf(err) == transport.ClassServer {
		method, err = transport.StreamedRead, nil // remote read works; a server behind this one is missing
	}
	if err != nil {
		if r.group.RemoteRead == config.RemoteReadAlways {
			return fmt.Errorf("remote_read: always, but: %w", err)
		}
		var e *transport.Error
		if transport.Refused(err) && errors.As(err, &e) && !p.Dialect.ReadOnly {
			p.methodReason = "no remote read: " + e.Err.Error()
			return nil
		}
		return err
	}
	p.Method = method
	err = r.findExternalLabels(ctx, p)
	var unknown *unknownLabelsError
	if !errors.As(err, &unknown) {
		return err
	}
	// Series that keep an external label would not be merged with those of other replicas.
	// With remote_read: always, the user asserts that there are no external labels.
	if r.group.RemoteRead != config.RemoteReadAlways {
		p.Method, p.methodReason = transport.QueryAPI, "external labels unknown: "+unknown.why
	}
	return nil
}

// Alive fails if the replica does not answer the simplest query.
func (r *Replica) Alive(ctx context.Context) (err error) {
	defer guard.Recover(&err)
	r.mtx.Lock()
	p := r.lastProfile
	r.mtx.Unlock()
	if p != nil && p.Dialect.ReadOnly {
		_, err := p.Client.ProbeRead(ctx)
		return err
	}
	return r.client.Alive(ctx)
}
