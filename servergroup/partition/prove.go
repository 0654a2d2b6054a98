package partition

import (
	"context"
	"slices"

	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// Scrapes are compared before a replica is chosen. Counts of a selector that was not asked for lately
// come later: the replica answers meanwhile, and its answer is used if they show nothing.

// unproven are counts of a selector that a piece needs.
type unproven struct {
	reach    Reach
	counting *evidence.Counting
}

// lackError says that a replica lacks series that a twin has, as their counts show.
type lackError struct{ url string }

func (e *lackError) Error() string { return e.url + ": it lacks series that its twins have" }

// askWhole runs f for the candidates as fanout.First does, until one has answered that does not lack
// anything. winner is its index; -1 if there is none.
func (p *Piece) askWhole(ctx context.Context, candidates []*replica.Replica, f func(ctx context.Context, i int) error) (winner int, errs []error) {
	for {
		var asked []*replica.Replica
		var places []int
		for i, r := range candidates {
			if _, err := p.prove(ctx, r, false); err != nil {
				errs = append(errs, err)
				continue
			}
			asked, places = append(asked, r), append(places, i)
		}
		if len(asked) == 0 {
			return -1, errs
		}
		at, failed := fanout.First(ctx, asked, p.partition.view.Extra, retryable, func(ctx context.Context, i int) error { return f(ctx, places[i]) })
		if at < 0 {
			return -1, append(errs, failed...)
		}
		// Nobody waits for counts while it holds a replica's slot: counting needs one.
		counted, err := p.prove(ctx, asked[at], true)
		if err == nil {
			switch {
			case !counted && p.partition.proves():
				return -1, append(errs, &lackError{asked[at].URL()})
			case !counted:
				p.partition.view.Ledger.Unproven(p.partition.view.CompletenessOf(p.partition.members[0]))
			}
			return places[at], append(errs, failed...)
		}
		errs = nil // now it is known who lacks something
	}
}

// prove fails with a lackError if counts show that a replica lacks something at the steps at which
// the piece is the answer. With wait it waits for counts that are under way, though not for long: a
// replica may hang. counted reports whether all replicas have counted.
func (p *Piece) prove(ctx context.Context, r *replica.Replica, wait bool) (counted bool, err error) {
	counted = !p.uncounted
	if len(p.unproven) == 0 {
		return counted, nil
	}
	ctx, cancel := evidenceContext(ctx)
	defer cancel()
	i := slices.Index(p.partition.members[0].Replicas, r)
	for _, u := range p.unproven {
		if !wait && !u.counting.Done() {
			continue
		}
		missed, lacking, all := u.counting.Await(ctx)
		counted = counted && all
		lacks := p.meets(u.reach, lacking[i])
		for instance, spans := range missed[i] {
			_, cut := slices.BinarySearch(p.cut, instance)
			lacks = lacks || !cut && p.meets(u.reach, spans)
		}
		if lacks {
			return counted, &lackError{r.URL()}
		}
	}
	return counted, nil
}

// meets reports whether the window of a step at which the piece is the answer includes one of the
// spans, or is near it.
func (p *Piece) meets(reach Reach, spans []evidence.Span) bool {
	for _, s := range spans {
		for _, turn := range p.Turns {
			if _, ok := reach.stepsOf(turn, s); ok {
				return true
			}
		}
	}
	return false
}
