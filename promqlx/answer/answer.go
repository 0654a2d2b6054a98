// Package answer joins answers to a part of a query.
//
// Each piece of the data gives an Answer to a part: a replica has evaluated the part
// (Remote), an engine has evaluated it locally (Local), or the part is a selector whose
// series are resampled at its steps (AddResampled). Join makes the series of them that stand
// for the part in the rest of the query, each with a stale marker where it ends. Answers
// that cannot be joined to what one engine over all data would give are refused: Verify,
// Unaddable and ErrDoubtful. Those that must not overlap are refused by JoinDisjoint.
package answer

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// ErrDoubtful is the error of answers that cannot be joined. The query has to be evaluated
// without parts.
var ErrDoubtful = errors.New("the answers of the partitions cannot be put together")

// Answer is the answer to a part, of one piece of a partition or of all its pieces.
type Answer struct {
	// By is the URL of the replica that evaluated the piece; "" if none did.
	By string
	// Warnings are all annotations, warnings and infos.
	Warnings annotations.Annotations
	series   []segment
}

// Add adds the answer of another piece.
func (a *Answer) Add(b Answer) {
	a.series = append(a.series, b.series...)
	a.Warnings.Merge(b.Warnings)
}

// Size counts the series and samples of the answer, without those that are resampled while
// they are read.
func (a *Answer) Size() (series, samples int) {
	for _, s := range a.series {
		if s.resampled == nil {
			series++
			samples += s.samples.Len()
		}
	}
	return series, samples
}

// Keep drops all samples that are not at some runs of steps. Resampled series are at them
// already.
func (a *Answer) Keep(turns []transport.Steps) {
	var kept []segment
	for _, s := range a.series {
		if s.resampled != nil {
			kept = append(kept, s)
			continue
		}
		for _, turn := range turns {
			if samples := s.samples.Between(turn.Start, turn.End); samples.Len() > 0 {
				kept = append(kept, segment{labels: s.labels, samples: samples})
			}
		}
	}
	a.series = kept
}

// segment is a series of an answer, for some steps.
type segment struct {
	labels labels.Labels
	// samples has one sample for each step at which the series has a value, at least one.
	samples *dedup.Samples
	// resampled is set instead of samples where these are made while they are read.
	resampled *resampled
}

// start returns the time (ms) of the first sample, or the first at which one is possible.
func (s segment) start() int64 {
	if s.resampled != nil {
		return s.resampled.steps.Start
	}
	return s.samples.T[0]
}

// Remote makes an answer of what a replica has evaluated. positions returns the positions in
// the query by those in the text that the replica was sent.
func Remote(got *partition.Answer, positions func() map[string]string) Answer {
	out := Answer{By: got.Replica}
	for _, s := range got.Series {
		out.series = append(out.series, segment{labels: s.Labels, samples: s.Samples})
	}
	if len(got.Infos)+len(got.Warnings) == 0 {
		return out
	}
	at := positions()
	for _, text := range got.Infos {
		out.Warnings.Add(newAnnotation(text, annotations.PromQLInfo, at))
	}
	for _, text := range got.Warnings {
		out.Warnings.Add(newAnnotation(text, annotations.PromQLWarning, at))
	}
	return out
}

// Local makes an answer of what was evaluated locally for a part of a query. It copies the
// samples. The error is ErrDoubtful where the engine gives a series both a float and a
// histogram at one time.
func Local(m promql.Matrix, ws annotations.Annotations, query string) (Answer, error) {
	out := Answer{Warnings: Positioned(ws, query), series: make([]segment, len(m))}
	for i, s := range m {
		samples, ok := columns(s)
		if !ok {
			return Answer{}, ErrDoubtful
		}
		out.series[i] = segment{labels: s.Metric, samples: samples}
	}
	return out, nil
}

// Verify returns ErrDoubtful if the answer shows that it cannot be joined with others: by an
// annotation that is about all series of a query together, or by a value too great to be
// added up.
func (a *Answer) Verify(p *plan.Part) error {
	for _, w := range a.Warnings {
		if p.DoubtfulAnnotation(w.Error()) || plan.Collective(w.Error()) {
			return ErrDoubtful
		}
	}
	if !p.Averages {
		return nil
	}
	for _, s := range a.series {
		if slices.ContainsFunc(s.samples.F, p.DoubtfulValue) || slices.ContainsFunc(s.samples.FH, p.DoubtfulHistogram) {
			return ErrDoubtful
		}
	}
	return nil
}
