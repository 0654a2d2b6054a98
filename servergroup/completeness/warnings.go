package completeness

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// partialPrefix begins the warning of an answer that lacks data. The server behind a group
// may be another oneprom, so that its warnings begin with it, too.
const partialPrefix = "partial answer: "

// PartialWarning is the warning that an answer lacks data of a group.
type PartialWarning struct{ Lack Lack }

func (w *PartialWarning) Error() string { return partialPrefix + w.Lack.Reason }

// UncoveredWarning is the warning that no group holds some of the data of an answer.
type UncoveredWarning struct{ Reason string }

func (w *UncoveredWarning) Error() string { return partialPrefix + w.Reason }

// LostReplicas is the info that replicas of a group failed, in whose place others answered.
type LostReplicas struct{ Outcome Outcome }

func (l *LostReplicas) Error() string {
	return fmt.Sprintf("%s: %s", annotations.PromQLInfo, l.Outcome)
}

// Unwrap marks it as an info.
func (l *LostReplicas) Unwrap() error { return annotations.PromQLInfo }

// unprovenAnswer is the info that nothing shows that an answer has all series of a group.
type unprovenAnswer struct{ group Group }

func (u *unprovenAnswer) Error() string {
	return fmt.Sprintf("%s: %s: a replica answered alone, and its twins have not counted the series, so that nothing shows that it has all of them", annotations.PromQLInfo, u.group)
}

// Unwrap marks it as an info.
func (u *unprovenAnswer) Unwrap() error { return annotations.PromQLInfo }

// ServerWarning is a warning of a server about its own answer.
type ServerWarning struct {
	Group Group
	text  string
	// partial reports whether the server is another oneprom whose answer is partial.
	partial bool
}

func (w *ServerWarning) Error() string { return w.text }

// Lack returns what the answer of the server lacks.
func (w *ServerWarning) Lack() Lack { return Lack{Group: w.Group.Name, Reason: w.text} }

// Remarks collect the warnings about one answer that are not about missing replicas. They are safe
// for concurrent use; the zero value is ready for use.
type Remarks struct {
	mtx      sync.Mutex
	warnings annotations.Annotations
	partial  []*ServerWarning
	seen     map[string]bool // of First
}

// Warn adds a warning.
func (m *Remarks) Warn(text string) {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	m.warnings.Add(errors.New(text))
}

// WarnOfServer adds a warning of the server at a URL that its answer to a selector is incomplete.
func (m *Remarks) WarnOfServer(g Group, url, text string) {
	if g.Restricted {
		text = Withheld
	}
	w := &ServerWarning{Group: g, text: Describe(g.Name, url, text), partial: strings.Contains(text, partialPrefix)}
	m.mtx.Lock()
	defer m.mtx.Unlock()
	m.warnings.Add(w)
	m.partial = append(m.partial, w)
}

// Describe returns a text about a group, and about its server at a URL unless that is "".
func Describe(group, url, text string) string {
	if url == "" {
		return fmt.Sprintf("%s: %s", nameOf(group), text)
	}
	return fmt.Sprintf("%s: %s: %s", nameOf(group), url, text)
}

// First reports whether it is called with this argument for the first time.
func (m *Remarks) First(about string) bool {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	if m.seen[about] {
		return false
	}
	if m.seen == nil {
		m.seen = map[string]bool{}
	}
	m.seen[about] = true
	return true
}

// Verdict returns the warnings, or an error if the answer must not be partial, and records the gaps
// in the ledger. The samples from mint to maxt (ms) were wanted.
func (m *Remarks) Verdict(l *Ledger, mint, maxt int64) (annotations.Annotations, error) {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	gone := &UnavailableError{}
	strict := false
	for _, w := range m.partial {
		gone.Lacks = append(gone.Lacks, w.Lack())
		strict = strict || w.Group.Strict
		l.addGap(w.Group, mint, maxt, w.text, w)
	}
	if strict {
		return m.warnings, gone
	}
	return m.warnings, nil
}

// Fold reduces the warnings to one for each group that the answer lacks data of, and the infos to
// one for each group that lost replicas. Parts of a query may have different reasons for the same
// gap, and so may the selectors of a query to another oneprom.
func (l *Ledger) Fold(ws annotations.Annotations) {
	foldLost(ws)
	for _, g := range l.Gaps() {
		folded := false
		for key, err := range ws {
			var own *PartialWarning
			var server *ServerWarning
			if errors.As(err, &own) && own.Lack.Group == g.Group || errors.As(err, &server) && server.partial && server.Group.Name == g.Group {
				delete(ws, key)
				folded = true
			}
		}
		switch {
		case !folded:
		case g.server != nil:
			ws.Add(g.server)
		default:
			ws.Add(&PartialWarning{Lack{Group: g.Group, Reason: g.String()}})
		}
	}
}

// foldLost reduces the infos about lost replicas to one for each group, with an error of each
// replica: the replicas may have failed in different fetches.
func foldLost(ws annotations.Annotations) {
	byGroup := map[string]*LostReplicas{}
	for _, key := range slices.Sorted(maps.Keys(ws)) {
		var l *LostReplicas
		if !errors.As(ws[key], &l) {
			continue
		}
		delete(ws, key)
		o := l.Outcome
		all := byGroup[o.Group.Name]
		if all == nil {
			all = &LostReplicas{Outcome{Group: o.Group, Asked: o.Asked}}
			byGroup[o.Group.Name] = all
		}
		for _, err := range o.Failed {
			if !slices.ContainsFunc(all.Outcome.Failed, func(e error) bool { return replicaOf(e) == replicaOf(err) }) {
				all.Outcome.Failed = append(all.Outcome.Failed, err)
			}
		}
	}
	for _, l := range byGroup {
		l.Outcome.Asked = max(l.Outcome.Asked, len(l.Outcome.Failed)+1) // some replica answered each time
		ws.Add(l)
	}
}

// replicaOf returns the URL of the replica of an error, or the text of the error.
func replicaOf(err error) string {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.URL
	}
	return err.Error()
}
