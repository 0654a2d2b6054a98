package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Fetch fetches samples by a method of a client of the profile p, and gives them the labels of the
// rules, which are those of the profile. If the server turns out to be another than the profile
// says, the error is one after which UpToDate tries again.
func (r *Replica) Fetch(ctx context.Context, p *Profile, client *transport.Client, by transport.Method, rules *labelmap.Rules, req transport.Request) ([]transport.Series, error) {
	req.Labels = rules.Apply
	if by == transport.QueryAPI || !p.Dialect.ExternalLabels {
		list, err := client.Fetch(ctx, by, req)
		if err != nil {
			return nil, err
		}
		return list, r.Recognize(p, rules.Unknown())
	}
	req.Matchers = labelmap.ForRead(req.Matchers)
	doubts := labelmap.NewDoubts(r.group, p.External, req.Matchers)
	req.NextResponse = doubts.NextResponse
	req.Labels = func(raw []labels.Label) (labels.Labels, string) {
		doubts.Observe(raw)
		return rules.Apply(raw)
	}
	list, err := client.Fetch(ctx, by, req)
	if err != nil {
		return nil, err
	}
	if err := r.dispel(ctx, p, req.Matchers, doubts.List()); err != nil {
		return nil, err
	}
	return list, r.Recognize(p, rules.Unknown())
}

// Arrange returns those series of a fetch by the rules whose labels satisfy the matchers, sorted by
// labels. Series that differ by the spelling of a number only are one. Of req it uses the window and
// Charge.
func (r *Replica) Arrange(list []transport.Series, check []*labels.Matcher, rules *labelmap.Rules, req transport.Request) ([]transport.Series, error) {
	list = slices.DeleteFunc(list, func(s transport.Series) bool { return !labelmap.MatchesAll(s.Labels, check) })
	list, err := transport.Arrange(r.URL(), list)
	if err != nil || !rules.Respelled() {
		return list, err
	}
	return transport.JoinSpellings(list, req)
}

// maxAttempts is how often a request is sent to a server that is another one each time.
const maxAttempts = 3

// UpToDate runs f, which sends a request by the profile that Ready returns, and runs it again if
// the server is another than the profile says.
func (r *Replica) UpToDate(f func() error) error {
	var err error
	for range maxAttempts {
		err = f()
		var e *transport.Error
		switch {
		case errors.As(err, &e) && e.Unsupported():
			r.Forget() // the server has been replaced since it was probed
		case !errors.Is(err, errRelabelled) && !errors.Is(err, errRespelled):
			return err
		}
	}
	return err
}

var (
	errRelabelled = errors.New("its external labels have changed while it was read")
	errRespelled  = errors.New("its spelling of numbers has changed while it was read")
)

// dispel returns nil if the external labels of the profile p explain the labels of a response to the
// matchers sent, which has raised the doubts. Else it drops the profile and returns errRelabelled.
func (r *Replica) dispel(ctx context.Context, p *Profile, sent []*labels.Matcher, doubts []labels.Label) error {
	selector := p.explained.selector(sent)
	if p.explained.all(selector, doubts) {
		return nil
	}
	now, err := r.rereading.share(ctx, func() (map[string]string, error) { return r.readExternalLabels(ctx, p) })
	if _, ok := errors.AsType[*unknownLabelsError](err); err != nil && !ok {
		return fmt.Errorf("%s: cannot tell whether its external labels have changed: %w", r.URL(), err)
	}
	if err == nil && maps.Equal(now, p.External) {
		p.explained.add(selector, doubts)
		return nil
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.profile == p {
		r.profile, r.probeErr = nil, nil // the next request probes at once
	}
	return errRelabelled
}

// readExternalLabels reads the labels that the server's remote read adds now, as its probe did.
func (r *Replica) readExternalLabels(ctx context.Context, p *Profile) (map[string]string, error) {
	now := Profile{Dialect: p.Dialect, Client: p.Client, Method: p.Method}
	if err := r.readConfiguration(ctx, &now); err != nil {
		return nil, err
	}
	err := r.findExternalLabels(ctx, &now)
	if _, ok := errors.AsType[*unknownLabelsError](err); ok && r.group.RemoteRead == config.RemoteReadAlways {
		err = nil // the user asserts that there are none
	}
	return now.External, err
}

// sharedRead reads external labels once for all who wait for that.
type sharedRead struct {
	slot chan struct{} // held while reading

	mtx    sync.Mutex // guards the fields below
	begun  int        // how many reads have begun
	latest int        // the number of the last one that succeeded, and its result:
	labels map[string]string
}

// share returns the result of a read that began after share was called.
func (s *sharedRead) share(ctx context.Context, read func() (map[string]string, error)) (map[string]string, error) {
	s.mtx.Lock()
	before := s.begun
	s.mtx.Unlock()
	select {
	case s.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.slot }()
	s.mtx.Lock()
	if s.latest > before {
		defer s.mtx.Unlock()
		return s.labels, nil
	}
	s.begun++
	s.mtx.Unlock()
	found, err := read()
	if err != nil {
		return nil, err
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.latest, s.labels = s.begun, found
	return found, nil
}
