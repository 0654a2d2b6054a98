package servergroup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// replica is one endpoint of a group with what is known of it.
type replica struct {
	group  *Config
	client *transport.Client
	now    func() time.Time
	life   *lifetime // probes end with it

	mtx       sync.Mutex    // guards the fields below
	probing   chan struct{} // closed when the probe under way has ended; nil if none is
	profile   *profile      // of the last probe that succeeded; nil if it is not believed any more
	probeErr  error         // of the last probe, nil if it succeeded
	probedAt  time.Time     // end of the last probe
	suspect   bool          // a request failed since the last probe
	lastErr   error         // of the last failed request
	lastErrAt time.Time
}

// profile is what probing found out about a backend.
type profile struct {
	Kind    string
	Version string
	// method is how samples are fetched; why says what was found otherwise.
	method transport.Method
	why    string
	// external are the labels that its remote read adds.
	external map[string]string
}

const (
	// profileAge is how long a profile is believed.
	profileAge = time.Minute
	// probeRest is the time between two probes of a replica that fails.
	probeRest = time.Second
)

func (r *replica) url() string { return r.client.URL() }

// ready returns the profile of the replica. It probes if there is none, or if
// requests have failed since; a profile that is merely old is refreshed in the
// background by Set.
func (r *replica) ready(ctx context.Context) (*profile, error) {
	for {
		r.mtx.Lock()
		rested := r.now().Sub(r.probedAt) >= probeRest
		if r.profile != nil && !(r.suspect && rested) {
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
			return nil, fmt.Errorf("%s: %w", r.url(), errClosed)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", r.url(), context.Cause(ctx))
		}
	}
}

// startProbe starts a probe unless one is under way. It goes on when the query
// that needs it ends, as others may wait for it too, and ends with the Set. It
// returns nil if that is closed. r.mtx is held.
func (r *replica) startProbe() chan struct{} {
	if r.probing != nil {
		return r.probing
	}
	done := make(chan struct{})
	started := r.life.run(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(r.group.Timeout), r.timeoutError())
		defer cancel()
		p, err := r.probe(ctx)
		r.probed(p, err)
		close(done)
	})
	if !started {
		return nil
	}
	r.probing = done
	return done
}

// probed takes over what a probe found.
func (r *replica) probed(p *profile, err error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.probing, r.probedAt, r.probeErr = nil, r.now(), err
	if err == nil {
		r.profile, r.suspect = p, false
		return
	}
	r.lastErr, r.lastErrAt = err, r.probedAt
	// One that only was to refresh what is known does not make it wrong: requests
	// do not need the endpoints that it asks.
	if r.suspect {
		r.profile = nil
	}
}

// refresh probes if the last probe failed or is older than profileAge.
func (r *replica) refresh() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	age := r.now().Sub(r.probedAt)
	if age >= profileAge || r.probeErr != nil && age >= probeRest {
		r.startProbe()
	}
}

func (r *replica) timeoutError() error {
	return fmt.Errorf("no answer within the group's timeout of %s", r.group.Timeout)
}

// failed remembers a failed request. Failures that say that the backend may not
// be what it was make the next request probe it.
func (r *replica) failed(err error) {
	class := transport.ClassOf(err)
	if class == "" || class == transport.ClassCanceled {
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

// forget makes the next request probe at once.
func (r *replica) forget() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.profile, r.probeErr = nil, nil
}

// probe asks the backend what it is.
func (r *replica) probe(ctx context.Context) (*profile, error) {
	p := &profile{method: transport.QueryAPI}
	if err := r.identify(ctx, p); err != nil {
		return nil, err
	}
	if r.group.RemoteRead == RemoteReadNever {
		p.why = "remote_read: never"
		return p, nil
	}
	method, err := r.client.ProbeRead(ctx)
	if err != nil {
		if r.group.RemoteRead == RemoteReadAlways {
			return nil, fmt.Errorf("remote_read: always, but: %w", err)
		}
		var e *transport.Error
		if refused(err) && errors.As(err, &e) {
			p.why = "no remote read: " + e.Err.Error()
			return p, nil
		}
		return nil, err
	}
	p.method = method
	err = r.findExternalLabels(ctx, p)
	var unknown *unknownLabelsError
	if !errors.As(err, &unknown) {
		return p, err
	}
	// Series that keep an external label would not merge with their twins.
	// Whoever insists on remote read says that there are none.
	if r.group.RemoteRead != RemoteReadAlways {
		p.method, p.why = transport.QueryAPI, "external labels unknown: "+unknown.why
	}
	return p, nil
}

// identify reads kind and version. A backend that does not tell its version may
// still be fine, one that cannot be reached is not.
func (r *replica) identify(ctx context.Context, p *profile) error {
	var info struct {
		Version     string `json:"version"`
		Application string `json:"application"`
	}
	err := r.client.Status(ctx, "buildinfo", &info)
	switch {
	case err == nil:
		p.Kind, p.Version = "prometheus", info.Version
		if info.Application != "" {
			p.Kind = info.Application
		}
		return nil
	case refused(err):
		p.Kind = "unknown"
		return nil
	default:
		return err
	}
}

func newReplica(cfg *Config, u *url.URL, c *http.Client, now func() time.Time, life *lifetime) *replica {
	params := url.Values{}
	for k, vs := range cfg.QueryParams {
		for _, v := range vs {
			params.Add(k, string(v))
		}
	}
	header := http.Header{}
	for k, v := range cfg.Headers {
		header.Set(k, string(v))
	}
	return &replica{
		group: cfg,
		now:   now,
		life:  life,
		client: &transport.Client{
			HTTP:     c,
			Base:     u,
			ReadPath: cfg.RemoteReadPath,
			Header:   header,
			Params:   params,
		},
	}
}
