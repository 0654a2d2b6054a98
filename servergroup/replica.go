package servergroup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// replica is one endpoint of a group with what is known of it.
type replica struct {
	group  *Config
	client *transport.Client
	now    func() time.Time

	mtx       sync.Mutex    // guards the fields below
	probing   chan struct{} // closed when the probe under way has ended; nil if none is
	profile   *profile      // of the last probe that succeeded
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
			wait = r.startProbe(ctx)
		}
		r.mtx.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", r.url(), context.Cause(ctx))
		}
	}
}

// startProbe starts a probe unless one is under way. It goes on when ctx ends:
// others may wait for it too. r.mtx is held.
func (r *replica) startProbe(ctx context.Context) chan struct{} {
	if r.probing != nil {
		return r.probing
	}
	done := make(chan struct{})
	r.probing = done
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), time.Duration(r.group.Timeout), r.timeoutError())
	go func() {
		defer cancel()
		p, err := r.probe(ctx)
		r.mtx.Lock()
		defer r.mtx.Unlock()
		r.probing, r.probedAt, r.probeErr = nil, r.now(), err
		if err == nil {
			r.profile, r.suspect = p, false
		} else {
			// What was known of it is not believed any more.
			r.profile, r.lastErr, r.lastErrAt = nil, err, r.probedAt
		}
		close(done)
	}()
	return done
}

// refresh probes if the last probe is older than profileAge.
func (r *replica) refresh(ctx context.Context) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.probing == nil && r.now().Sub(r.probedAt) >= profileAge {
		r.startProbe(ctx)
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
		if errors.As(err, &e) && (e.Unsupported() || e.Class == transport.ClassUser) {
			p.why = "no remote read: " + e.Err.Error()
			return p, nil
		}
		return nil, err
	}
	p.method = method
	p.external, err = r.externalLabels(ctx)
	return p, err
}

// identify reads kind and version. A backend that does not tell its version may
// still be fine, one that cannot be reached is not.
func (r *replica) identify(ctx context.Context, p *profile) error {
	var info struct {
		Version     string `json:"version"`
		Application string `json:"application"`
	}
	err := r.client.Status(ctx, "buildinfo", &info)
	var e *transport.Error
	switch {
	case err == nil:
		p.Kind, p.Version = "prometheus", info.Version
		if info.Application != "" {
			p.Kind = info.Application
		}
		return nil
	case errors.As(err, &e) && e.Unsupported():
		p.Kind = "unknown"
		return nil
	default:
		return err
	}
}

// externalLabels finds the labels that remote read adds to each series. One
// series that both ways of asking know shows them; where there is none, the
// backend's configuration is believed.
func (r *replica) externalLabels(ctx context.Context) (map[string]string, error) {
	now := r.now().UnixMilli()
	noLabels := func(raw []labels.Label) (labels.Labels, string) { return labels.New(cloneLabels(raw)...), "" }
	shown, err := r.client.Sample(ctx, now)
	if err == nil && len(shown) > 0 {
		own := shown[0]
		req := transport.Request{MinT: now - 5*60*1000, MaxT: now, Labels: noLabels}
		own.Range(func(l labels.Label) {
			// A regular expression, as in forRead.
			req.Matchers = append(req.Matchers, labels.MustNewMatcher(labels.MatchRegexp, l.Name, regexp.QuoteMeta(l.Value)))
		})
		read, err := r.client.Fetch(ctx, transport.StreamedRead, req)
		if err == nil && len(read) == 1 {
			external := map[string]string{}
			read[0].Labels.Range(func(l labels.Label) {
				if !own.Has(l.Name) {
					external[l.Name] = l.Value
				}
			})
			return external, nil
		}
	}
	return r.configuredExternalLabels(ctx)
}

func cloneLabels(raw []labels.Label) []labels.Label {
	out := make([]labels.Label, len(raw))
	for i, l := range raw {
		out[i] = labels.Label{Name: string([]byte(l.Name)), Value: string([]byte(l.Value))}
	}
	return out
}

func newReplica(cfg *Config, u *url.URL, c *http.Client, now func() time.Time) *replica {
	header := http.Header{}
	for k, v := range cfg.Headers {
		header.Set(k, string(v))
	}
	return &replica{
		group: cfg,
		now:   now,
		client: &transport.Client{
			HTTP:     c,
			Base:     u,
			ReadPath: cfg.RemoteReadPath,
			Header:   header,
			Params:   cfg.QueryParams,
		},
	}
}
