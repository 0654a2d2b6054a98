package servergroup

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/util/annotations"
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
}

func (e *UnavailableError) Error() string { return strings.Join(e.Groups, "; ") }

// outcome is what became of asking one group.
type outcome struct {
	group  *Config
	asked  int
	failed []error // of its replicas
}

func (o outcome) missing() bool { return len(o.failed) >= o.asked }

// late tells whether the query's time was the reason for each failure.
func (o outcome) late() bool {
	for _, err := range o.failed {
		if !errors.Is(err, errNearlyOver) {
			return false
		}
	}
	return len(o.failed) > 0
}

func (o outcome) String() string {
	where := fmt.Sprintf("server group %q", o.group.Name)
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
	if o.missing() {
		return where + " did not answer: " + strings.Join(texts, "; ")
	}
	return where + " answered without a replica: " + strings.Join(texts, "; ")
}

// verdict turns what became of the groups into warnings or an error. An answer
// without any of the groups that were asked is an error, never an empty success.
func (v *View) verdict(outcomes []outcome) (annotations.Annotations, error) {
	var ws annotations.Annotations
	var missing []string
	late := true
	for _, o := range outcomes {
		switch {
		case o.missing():
			missing = append(missing, o.String())
			late = late && o.late()
			ws.Add(errors.New("partial answer: " + o.String()))
		case len(o.failed) > 0:
			ws.Add(fmt.Errorf("%w: %s", annotations.PromQLInfo, o))
		}
	}
	if len(missing) > 0 && (v.partial == PartialError || len(missing) == len(outcomes)) {
		return ws, &UnavailableError{Groups: missing, Late: late}
	}
	return ws, nil
}

// backendWarnings collects what backends say of their answers: one that is itself
// in front of others may have been partial.
type backendWarnings struct {
	mtx  sync.Mutex
	list annotations.Annotations
}

func (b *backendWarnings) add(t *target, r *replica, text string) {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	b.list.Add(fmt.Errorf("server group %q: %s: %s", t.cfg.Name, r.url(), text))
}

// brokenRun is told of samples of a replica that cannot be decoded. That shows
// only while a series is merged, when its set's warnings have been read.
func (v *View) brokenRun(err error) {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	v.broken.Add(fmt.Errorf("%w: samples of a replica are broken and were left out: %w", annotations.PromQLInfo, err))
}

// LateWarnings returns what was found out after the series were handed out.
func (v *View) LateWarnings() annotations.Annotations {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	return maps.Clone(v.broken)
}
