package plan

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
)

const mixedSchemas = "vector contains a mix of histograms with exponential and custom buckets schemas"

// mixtures are warnings of aggregations that drop a group.
var mixtures = []string{"encountered a mix of histograms and floats for aggregation", mixedSchemas}

// collective are annotations that the engine makes of all series together: it counts
// what it had to fix, and tells the last of the pairs at a step that do not go together.
var collective = []string{"needed to be fixed for monotonicity", "incompatible sample types encountered for binary operator"}

// containsAny reports whether an annotation contains one of the texts.
func containsAny(texts []string, annotation string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(annotation, text) })
}

// DoubtfulNote reports whether a warning in the answers of the part shows that they
// cannot be put together: the query has then to be planned without parts. Where
// floats and histograms, or histograms of two kinds, are added up, a group has no
// value at all, however little of it is mixed.
func (p *Part) DoubtfulNote(warning string) bool { return p.Adds && containsAny(mixtures, warning) }

// huge is where sums of a few sums may be infinite.
const huge = 1e300

// DoubtfulValue is DoubtfulNote for a value: a sum may be infinite where the average
// is not.
func (p *Part) DoubtfulValue(v float64) bool { return p.Averages && math.Abs(v) > huge }

// DoubtfulHistogram is DoubtfulValue for a histogram; nil is none.
func (p *Part) DoubtfulHistogram(h *histogram.FloatHistogram) bool {
	return h != nil && (p.DoubtfulValue(h.Sum) || p.DoubtfulValue(h.Count))
}

// Collective reports whether an annotation is one that the engine makes of all series
// together: it counts what it had to fix, say. Those of parts say something else.
func Collective(annotation string) bool { return containsAny(collective, annotation) }

// DoubtfulNote reports whether a warning of the evaluation of the plan shows that the
// answers of its parts cannot be put together: histograms could not be added up, and the
// warning names their metric, but the answers of parts have no names any more.
func (p *Plan) DoubtfulNote(warning string) bool {
	return strings.Contains(warning, mixedSchemas) && strings.Contains(warning, `for metric name ""`) &&
		slices.ContainsFunc(p.Leaves, func(l Leaf) bool { return l.Part != nil && l.Part.Adds })
}
