// Package replica is one server of a server group. Probing finds out what the server is and
// how it is asked best (its Profile); an attempt sends it a request, unless its circuit breaker
// is open. A Registry makes the replicas, and keeps what outlives a reload.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Replica is one endpoint of a group with what is known of it.
type Replica struct {
	group    *config.Group
	Endpoint targets.Endpoint
	client   *transport.Client
	now      func() time.Time
	life     *lifetime.Lifetime // probes end with it
	logger   *slog.Logger
	// features are those of PromQL that are enabled here.
	features []string
	Health   *health.Replica
	region   *health.Slots // of the group's region; nil: it has none
	Metrics  *Metrics

	mtx       sync.Mutex    // guards the fields below
	probing   chan struct{} // closed when the probe under way has ended; nil if none is
	inData    []string      // findings that the data showed after the last probe
	profile   *Profile      // of the last probe that succeeded; nil if it is not believed any more
	known     *Profile      // the last that there was, believed or not
	probeErr  error         // of the last probe, nil if it succeeded
	probedAt  time.Time     // end of the last probe
	suspect   bool          // a request failed since the last probe
	lastErr   error         // of the last failed request
	lastErrAt time.Time
}

// Offline returns a replica that is never asked, for explanations: only its URL is
// known.
func Offline(cfg *config.Group, base *url.URL) *Replica {
	return &Replica{group: cfg, client: &transport.Client{Base: base}}
}

// Profile is what probing found out about a backend.
type Profile struct {
	transport.Identity
	Dialect transport.Dialect
	// Client speaks the dialect.
	Client *transport.Client
	// Method is how samples are fetched; why says what was found otherwise.
	Method transport.Method
	why    string
	// Local says why the backend is not asked to evaluate; "" if it is.
	Local string
	// configured are the external labels of its configuration, nil if they are not
	// known; external are those that its remote read adds.
	configured, External map[string]string
	// findings are what is wrong with the group's configuration for this backend,
	// doubts are those of them that make answers doubtful.
	findings, Doubts []string
}

const (
	// ProfileAge is how long a profile is believed.
	ProfileAge = time.Minute
	// ProbeRest is the time between two probes of a replica that fails.
	ProbeRest = time.Second
)

// URL is the base URL of the replica, without credentials.
func (r *Replica) URL() string { return r.client.URL() }

// Now is the time of the registry's clock.
func (r *Replica) Now() time.Time { return r.now() }

// Run runs f in the background, until the registry's life ends; false if it has ended.
func (r *Replica) Run(f func(context.Context)) bool { return r.life.Run(f) }

// Ready returns the profile of the replica. It probes if there is none, or if
// requests have failed since; a profile that is merely old is refreshed in the
// background by Set.
func (r *Replica) Ready(ctx context.Context) (*Profile, error) {
	for {
		r.mtx.Lock()
		rested := r.now().Sub(r.probedAt) >= ProbeRest
		if r.profile != nil && (!r.suspect || !rested) {
			p := r.profile
			r.mtx.Unlock()
			return p, nil
		}
		if r.profile == nil && r.probeErr != nil && !rested {
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

// Answered reports whether it has answered its last probe.
func (r *Replica) Answered() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.profile != nil && r.probeErr == nil
}

// AtHand returns the profile that ready would return without waiting, nil if there is
// none.
func (r *Replica) AtHand() *Profile {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.suspect && r.now().Sub(r.probedAt) >= ProbeRest {
		return nil
	}
	return r.profile
}

// startProbe starts a probe unless one is under way. It goes on when the query
// that needs it ends, as others may wait for it too, and ends with the Set. It
// returns nil if that is closed. r.mtx is held.
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
			r.CheckData(ctx, p) // for which no query waits
		}
	})
	if !started {
		return nil
	}
	r.probing = done
	return done
}

// probed takes over what a probe found.
func (r *Replica) probed(p *Profile, err error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.tellPanic(err)
	r.probing, r.probedAt, r.probeErr = nil, r.now(), err
	if err == nil {
		r.tellChange(r.known, p)
		r.profile, r.known, r.suspect = p, p, false
		return
	}
	r.lastErr, r.lastErrAt = err, r.probedAt
	// One that only was to refresh what is known does not make it wrong: requests
	// do not need the endpoints that it asks.
	if r.suspect {
		r.profile = nil
	}
}

// tellChange logs that the backend is not what it was before, and what is wrong
// with it now.
func (r *Replica) tellChange(before, now *Profile) {
	switch {
	case before == nil:
		before = &Profile{}
	case before.Identity != now.Identity:
		r.logger.Warn("a backend has changed", "url", r.URL(), "before", before.String(), "now", now.String())
	}
	r.tellNew(before.findings, now.findings)
}

// tellNew logs the findings that were not there before.
func (r *Replica) tellNew(before, now []string) {
	for _, f := range now {
		if !slices.Contains(before, f) {
			r.logger.Warn("finding", "url", r.URL(), "finding", f)
		}
	}
}

// lookedAt takes over what the data showed, unless it could not be looked at.
func (r *Replica) lookedAt(findings []string, err error) {
	if err != nil {
		r.tellPanic(err)
		return
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.tellNew(r.inData, findings)
	r.inData = findings
}

// Misfits reports whether the data has shown the group's labels to be wrong.
func (r *Replica) Misfits() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return len(r.inData) > 0
}

// Refresh probes if the last probe failed or is older than profileAge. The channel is closed
// when the probe that is under way has ended; it is nil if none is.
func (r *Replica) Refresh() <-chan struct{} {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	age := r.now().Sub(r.probedAt)
	if age >= ProfileAge || r.probeErr != nil && age >= ProbeRest {
		return r.startProbe()
	}
	return r.probing
}

func (r *Replica) timeoutError() error {
	return fmt.Errorf("no answer within the group's timeout of %s", r.group.Timeout)
}

// failed remembers a failed request. Failures that say that the backend may not
// be what it was make the next request probe it.
func (r *Replica) failed(err error) {
	r.tellPanic(err)
	class := transport.ClassOf(err)
	var refused refusedError
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

// tellPanic logs an error that is a bug.
func (r *Replica) tellPanic(err error) {
	if bug, ok := errors.AsType[*guard.PanicError](err); ok {
		r.logger.Error("what a replica answered made oneprom panic", "url", r.URL(), "panic", bug.Value, "stack", string(bug.Stack))
	}
}

// Forget makes the next request probe at once.
func (r *Replica) Forget() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.profile, r.probeErr = nil, nil
}

// probe asks the backend what it is.
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
	if err := r.findEvaluates(ctx, p); err != nil {
		return nil, err
	}
	r.compare(p)
	return p, nil
}

// identify finds out kind and version. A backend that does not tell them may still
// be fine, one that cannot be reached is not.
func (r *Replica) identify(ctx context.Context) (*Profile, error) {
	p := &Profile{}
	id, err := r.client.Identify(ctx)
	if err != nil && !transport.Refused(err) {
		return nil, err
	}
	p.Identity = id
	if kind := r.group.Kind; kind != "" && kind != id.Kind {
		if id.Kind != transport.UnknownKind {
			p.findings = append(p.findings, fmt.Sprintf("`kind: %s` is configured, but the backend says that it is %s: correct `kind` or remove it", kind, id))
		}
		p.Kind = kind
	}
	p.Dialect = transport.DialectOf(p.Kind, len(r.group.ReplicaLabels) > 0)
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
		p.why = "no export API: " + err.Error()
	}
	if r.group.RemoteRead == config.RemoteReadNever {
		p.why = "remote_read: never"
		return nil
	}
	method, err := p.Client.ProbeRead(ctx)
	if p.Dialect.RefusesPartialReads && transport.ClassOf(err) == transport.ClassServer {
		method, err = transport.StreamedRead, nil // it has it, and something behind it is gone
	}
	if err != nil {
		if r.group.RemoteRead == config.RemoteReadAlways {
			return fmt.Errorf("remote_read: always, but: %w", err)
		}
		var e *transport.Error
		if transport.Refused(err) && errors.As(err, &e) && !p.Dialect.ReadOnly {
			p.why = "no remote read: " + e.Err.Error()
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
	// Series that keep an external label would not merge with their twins.
	// Whoever insists on remote read says that there are none.
	if r.group.RemoteRead != config.RemoteReadAlways {
		p.Method, p.why = transport.QueryAPI, "external labels unknown: "+unknown.why
	}
	return nil
}

// Alive asks the replica the simplest query.
func (r *Replica) Alive(ctx context.Context) (err error) {
	defer guard.Recover(&err)
	r.mtx.Lock()
	known := r.known
	r.mtx.Unlock()
	if known != nil && known.Dialect.ReadOnly {
		_, err := known.Client.ProbeRead(ctx)
		return err
	}
	return r.client.Alive(ctx)
}
