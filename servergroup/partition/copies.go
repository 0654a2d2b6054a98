package partition

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Where groups with copies are not asked (view.Alone), their originals prove that they have all samples:
// one replica answers that has missed nothing, or all are merged that have missed something and lost
// nothing; and at no time that matters were they all away.

// CopiesError says that the copies of a group's samples matter in some spans of time: those who have
// copies must be asked for them.
type CopiesError struct {
	Group string
	Spans []evidence.Span
}

func (e *CopiesError) Error() string {
	return fmt.Sprintf("server group %q may lack samples that others have copies of", e.Group)
}

// always is all of time.
var always = []evidence.Span{{From: math.MinInt64, To: math.MaxInt64}}

// needsCopies returns the error that copies of the partition's only group matter.
func (p *Partition) needsCopies(spans []evidence.Span) error {
	return &CopiesError{p.members[0].Config.Name, spans}
}

// proves reports whether the partition has to prove that it has all samples.
func (p *Partition) proves() bool {
	return p.Single() && p.view.WithoutCopiesOf(p.members[0])
}

// insists reports whether copies are asked for where a replica does not answer. They are not for a request
// whose answer leaves out groups that are missing: nobody knows whether copies of all samples have come.
func (p *Partition) insists() bool { return p.proves() && !p.view.Request.WholeSeries }

// lack is a span in which a replica lacks series of a selector.
type lack struct {
	reach Reach
	span  evidence.Span
}

// meets reports whether the window of one of some steps includes the span, or is near it.
func (l lack) meets(turn transport.Steps) bool {
	_, ok := l.reach.stepsOf(turn, l.span)
	return ok
}

// proven returns the pieces, but fails where copies of their samples matter that are not asked for: no replica
// was there at some time, or one does not answer now, or replicas are merged of which one has lost samples.
// What rules write, and clients, is as whole as the replicas are that were there.
func (c *chooser) proven(pieces []*Piece) ([]*Piece, error) {
	if !c.partition.proves() {
		return pieces, nil
	}
	if len(c.lost) > 0 && c.partition.insists() {
		return nil, c.partition.needsCopies(always)
	}
	spans := c.silent
	for _, p := range pieces {
		p.generations = c.generations
		for _, l := range c.lacks {
			if p.single == nil && slices.ContainsFunc(p.Turns, l.meets) {
				spans = append(spans, l.span)
			}
		}
	}
	if len(spans) > 0 {
		return nil, c.partition.needsCopies(spans)
	}
	return pieces, nil
}

// confirmAll fails if a replica whose samples were merged may have lost some since evidence was collected.
func (p *Piece) confirmAll(ctx context.Context) error {
	for _, r := range p.partition.members[0].Replicas {
		if p.confirm(ctx, r) != nil {
			return p.partition.needsCopies(always)
		}
	}
	return nil
}

// orCopies returns the error of a fetch or, where copies of the samples that could not be had are not
// asked for, that these matter.
func (p *Piece) orCopies(err error) error {
	_, gone := errors.AsType[*completeness.UnavailableError](err)
	if p.partition.proves() && isLoss(err) || p.partition.insists() && gone {
		return p.partition.needsCopies(always)
	}
	return err
}
