package servergroup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file is what an answer says of itself: who did not answer, and what the
// backends say of their answers.

// UnavailableError is an answer that cannot be given because groups did not
// answer.
type UnavailableError struct {
	// Groups says for each group that failed which it is and why.
	Groups []string
	// Late tells that they only failed because the time of the query was over.
	Late bool

	failed []error // of the replicas
}

func (e *UnavailableError) Error() string { return strings.Join(e.Groups, "; ") }

// outcome is what became of asking one group.
type outcome struct {
	group  *config.Group
	asked  int
	failed []error // of its replicas
	errs   []error // of all replicas by index, nil for those that answered
	needed bool    // each replica has samples that the others miss
	quiet  bool    // what the replicas say is not for the request
}

// missing tells whether nobody answered.
func (o outcome) missing() bool { return len(o.failed) >= o.asked }

// partial tells whether samples are missing.
func (o outcome) partial() bool { return o.missing() || o.needed && len(o.failed) > 0 }

// why is why a group is missing.
func (o outcome) why() error {
	if len(o.failed) == 0 {
		return errors.New("it has no targets")
	}
	return together(o.failed)
}

// late tells whether the query's time was the reason for each failure.
func (o outcome) late() bool {
	for _, err := range o.failed {
		if !errors.Is(err, errNearlyOver) {
			return false
		}
	}
	return len(o.failed) > 0
}

// nameOf is how a group is named in texts.
func nameOf(group string) string { return fmt.Sprintf("server group %q", group) }

func (o outcome) String() string {
	where := nameOf(o.group.Name)
	if o.group.Region != "" {
		where += fmt.Sprintf(" (region %q)", o.group.Region)
	}
	if o.asked == 0 {
		return where + " has no targets"
	}
	texts := make([]string, len(o.failed))
	for i, err := range o.failed {
		texts[i] = err.Error()
	}
	if o.quiet {
		texts = []string{withheld}
	}
	if o.missing() {
		return where + " did not answer: " + strings.Join(texts, "; ")
	}
	text := where + " answered without a replica: " + strings.Join(texts, "; ")
	if o.needed {
		text += ", and the others have missed something"
	}
	return text
}

// lostReplicas is the info that replicas of a group failed in whose place others answered.
type lostReplicas struct{ outcome }

func (l *lostReplicas) Error() string {
	return fmt.Sprintf("%s: %s", annotations.PromQLInfo, l.outcome)
}

// Unwrap marks it as an info.
func (l *lostReplicas) Unwrap() error { return annotations.PromQLInfo }

// replicaOf is the URL of the replica that an error is of, or its text.
func replicaOf(err error) string {
	var e *transport.Error
	if errors.As(err, &e) {
		return e.URL
	}
	return err.Error()
}

// foldLost leaves one of these infos for each group, which has an error of each replica:
// several fetches may have met different ones.
func foldLost(ws annotations.Annotations) {
	byGroup := map[string]*lostReplicas{}
	for _, key := range slices.Sorted(maps.Keys(ws)) {
		var l *lostReplicas
		if !errors.As(ws[key], &l) {
			continue
		}
		delete(ws, key)
		all := byGroup[l.group.Name]
		if all == nil {
			all = &lostReplicas{outcome{group: l.group, asked: l.asked, quiet: l.quiet}}
			byGroup[l.group.Name] = all
		}
		for _, err := range l.failed {
			if !slices.ContainsFunc(all.failed, func(known error) bool { return replicaOf(known) == replicaOf(err) }) {
				all.failed = append(all.failed, err)
			}
		}
	}
	for _, l := range byGroup {
		l.asked = max(l.asked, len(l.failed)+1) // some replica answered each time
		ws.Add(l)
	}
}

// verdict turns what became of the groups into warnings or an error. An answer
// without any of the groups that were asked is an error, never an empty success.
func (v *View) verdict(outcomes []outcome) (annotations.Annotations, error) {
	var ws annotations.Annotations
	var missing []string
	var failed []error
	late, gone, strict := true, 0, false
	for _, o := range outcomes {
		if o.missing() {
			gone++
		}
		strict = strict || o.partial() && v.strict(o.group)
		switch {
		case o.partial():
			missing = append(missing, o.String())
			failed = append(failed, o.failed...)
			late = late && o.late()
			ws.Add(errors.New(partialText + o.String()))
		case len(o.failed) > 0:
			ws.Add(&lostReplicas{o})
		}
	}
	if strict || gone > 0 && gone == len(outcomes) {
		return ws, &UnavailableError{Groups: missing, Late: late, failed: failed}
	}
	return ws, nil
}

// ended is the error of a fetch during which the query ended. If its time was over, that
// names the groups that had not answered.
func ended(ctx context.Context, outcomes []outcome) error {
	cause := context.Cause(ctx)
	late := &UnavailableError{Late: true}
	for _, o := range outcomes {
		if o.missing() {
			late.Groups = append(late.Groups, o.String())
		}
	}
	if errors.Is(cause, context.DeadlineExceeded) && len(late.Groups) > 0 {
		return late
	}
	return cause
}

// remarks collect what is to be said of an answer besides who did not answer.
type remarks struct {
	mtx      sync.Mutex
	warnings annotations.Annotations
	partial  []remark // of backends, themselves in front of others, whose answers were not whole
	said     map[string]bool
}

func (m *remarks) warn(err error) {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	m.warnings.Add(err)
}

// backend takes a warning of a backend's. It answers selectors only, so that what
// it warns of is that its answer is not whole.
func (m *remarks) backend(t *target, r *replica, text string) {
	if t.restricted() {
		text = withheld
	}
	text = fmt.Sprintf("server group %q: %s: %s", t.cfg.Name, r.url(), text)
	m.mtx.Lock()
	defer m.mtx.Unlock()
	m.warnings.Add(errors.New(text))
	m.partial = append(m.partial, remark{t.cfg, text})
}

// remark is what a backend of a group says.
type remark struct {
	group *config.Group
	text  string
}

// first tells whether it is asked about this for the first time.
func (m *remarks) first(about string) bool {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	if m.said[about] {
		return false
	}
	if m.said == nil {
		m.said = map[string]bool{}
	}
	m.said[about] = true
	return true
}

// verdict returns the warnings, or an error where an answer must not be partial. The
// samples from mint to maxt (ms) were wanted.
func (m *remarks) verdict(v *View, mint, maxt int64) (annotations.Annotations, error) {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	var texts []string
	strict := false
	for _, r := range m.partial {
		texts = append(texts, r.text)
		strict = strict || v.strict(r.group)
		v.lacks(r.group, mint, maxt, r.text)
	}
	if strict {
		return m.warnings, &UnavailableError{Groups: texts}
	}
	return m.warnings, nil
}

// brokenRun is told of samples of a replica that cannot be decoded. That shows
// only while a series is merged, when its set's warnings have been read.
func (v *View) brokenRun(err error) {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	v.broken.Add(fmt.Errorf("%w: samples of a replica are broken and were left out: %w", annotations.PromQLInfo, err))
}

// noteLost is told how replicas of a group failed, in whose place others answered.
func (v *View) noteLost(g groupView, errs []error) {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	v.broken.Add(&lostReplicas{outcome{group: g.cfg, asked: len(g.replicas), failed: errs, quiet: g.restricted()}})
}

// LateWarnings returns what was found out after the series were handed out.
func (v *View) LateWarnings() annotations.Annotations {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	return maps.Clone(v.broken)
}
