package completeness

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/util/annotations"
)

// Withheld replaces texts of servers that the request must not see.
const Withheld = "details are hidden from tenants"

// ErrNearlyOver is the cause with which the requests of a query end a little before the query does,
// so that the answers of other servers can still be used.
var ErrNearlyOver = errors.New("no answer within 90 % of the query's remaining time")

// Group is a server group, with what warnings and errors about it depend on.
type Group struct {
	Name, Region string
	// Strict reports whether an answer must not lack data of the group.
	Strict bool
	// Restricted reports whether the request may see some series of the group only. Texts of
	// servers are then hidden from it, as they may be about other series.
	Restricted bool
}

// String returns how texts name the group, with its region.
func (g Group) String() string {
	if g.Region == "" {
		return nameOf(g.Name)
	}
	return fmt.Sprintf("%s (region %q)", nameOf(g.Name), g.Region)
}

// nameOf returns how texts name a group.
func nameOf(group string) string { return fmt.Sprintf("server group %q", group) }

// UnavailableError is the error of a query that has no answer because groups did not answer.
type UnavailableError struct {
	// Lacks has an element for each group that failed.
	Lacks []Lack
	// Late reports whether they failed only because the time of the query was over.
	Late bool
	// Causes are the errors of the groups' replicas, as far as they are known.
	Causes []error
}

// Lack is a group that an answer lacks.
type Lack struct {
	Group string
	// Reason is a sentence that names the group and says why its data is missing.
	Reason string
}

func (e *UnavailableError) Error() string {
	texts := make([]string, len(e.Lacks))
	for i, l := range e.Lacks {
		texts[i] = l.Reason
	}
	return strings.Join(texts, "; ")
}

// Outcome is the result of asking one group.
type Outcome struct {
	Group Group
	// Asked is how many replicas were asked; Failed are the errors of those that failed.
	Asked  int
	Failed []error
	// AllNeeded reports whether each replica may have samples that the others miss.
	AllNeeded bool
}

// Missing reports whether no replica answered.
func (o Outcome) Missing() bool { return len(o.Failed) >= o.Asked }

// Partial reports whether samples are missing.
func (o Outcome) Partial() bool { return o.Missing() || o.AllNeeded && len(o.Failed) > 0 }

// err returns why the group is missing.
func (o Outcome) err() error {
	if len(o.Failed) == 0 {
		return errors.New("it has no targets")
	}
	return Join(o.Failed)
}

// late reports whether the end of the query's time was the reason for each failure.
func (o Outcome) late() bool {
	for _, err := range o.Failed {
		if !errors.Is(err, ErrNearlyOver) {
			return false
		}
	}
	return len(o.Failed) > 0
}

// Lack returns what the answer lacks.
func (o Outcome) Lack() Lack { return Lack{Group: o.Group.Name, Reason: o.String()} }

// String returns which replicas failed, and how.
func (o Outcome) String() string {
	where := o.Group.String()
	if o.Asked == 0 {
		return where + " has no targets"
	}
	texts := make([]string, len(o.Failed))
	for i, err := range o.Failed {
		texts[i] = err.Error()
	}
	if o.Group.Restricted {
		texts = []string{Withheld}
	}
	if o.Missing() {
		return where + " did not answer: " + strings.Join(texts, "; ")
	}
	text := where + " answered without a replica: " + strings.Join(texts, "; ")
	if o.AllNeeded {
		text += ", and the others have missed something"
	}
	return text
}

// Join makes one error of the errors of several replicas, at least one.
func Join(errs []error) error {
	err := errs[0]
	for _, more := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, more)
	}
	return err
}

// Verdict returns the warnings about the outcomes of groups, or an error if the answer must not be
// partial. If no group answered, that is always an error, never an empty success.
func Verdict(outcomes []Outcome) (annotations.Annotations, error) {
	var ws annotations.Annotations
	gone := &UnavailableError{Late: true}
	missing, strict := 0, false
	for _, o := range outcomes {
		if o.Missing() {
			missing++
		}
		strict = strict || o.Partial() && o.Group.Strict
		switch {
		case o.Partial():
			gone.Lacks = append(gone.Lacks, o.Lack())
			gone.Causes = append(gone.Causes, o.Failed...)
			gone.Late = gone.Late && o.late()
			ws.Add(&PartialWarning{o.Lack()})
		case len(o.Failed) > 0:
			ws.Add(&LostReplicas{o})
		}
	}
	if strict || missing > 0 && missing == len(outcomes) {
		return ws, gone
	}
	return ws, nil
}

// AnyStrict reports whether data is missing of a group whose data an answer must not lack.
func AnyStrict(outcomes []Outcome) bool {
	for _, o := range outcomes {
		if o.Partial() && o.Group.Strict {
			return true
		}
	}
	return false
}

// Ended returns the error of a fetch if the query has ended, else nil. If its time was over, the
// error names the groups that had not answered.
func Ended(ctx context.Context, outcomes []Outcome) error {
	cause := context.Cause(ctx)
	late := &UnavailableError{Late: true}
	for _, o := range outcomes {
		if o.Missing() {
			late.Lacks = append(late.Lacks, o.Lack())
		}
	}
	if errors.Is(cause, context.DeadlineExceeded) && len(late.Lacks) > 0 {
		return late
	}
	return cause
}
