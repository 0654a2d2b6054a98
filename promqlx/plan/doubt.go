package plan

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
)

const mixedSchemas = "vector contains a mix of histograms with exponential and custom buckets schemas"

// mixtures are warnings of aggregations that have no value for a group of series.
var mixtures = []string{"encountered a mix of histograms and floats for aggregation", mixedSchemas}

// collective are annotations about all series together. The engine counts what it had to fix,
// and names the last of the pairs at a step that do not match.
var collective = []string{"needed to be fixed for monotonicity", "incompatible sample types encountered for binary operator"}

// containsAny reports whether an annotation contains one of the texts.
func containsAny(texts []string, annotation string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(annotation, text) })
}

// DoubtfulAnnotation reports whether a warning in the answers of the part shows that they
// cannot be joined: the query has then to be planned without parts. Where floats and
// histograms, or histograms of two kinds, are added up, a group of series has no value at
// all, however few of them are of another kind.
func (p *Part) DoubtfulAnnotation(warning string) bool {
	return p.Adds && containsAny(mixtures, warning)
}

// huge is a value from which on the sum of a few sums may be infinite.
const huge = 1e300

// DoubtfulValue reports whether a value in the answers of the part shows that they cannot be
// joined: a sum may be infinite where the average is not.
func (p *Part) DoubtfulValue(v float64) bool { return p.Averages && math.Abs(v) > huge }

// DoubtfulHistogram is DoubtfulValue for a histogram. It is false for nil.
func (p *Part) DoubtfulHistogram(h *histogram.FloatHistogram) bool {
	return h != nil && (p.DoubtfulValue(h.Sum) || p.DoubtfulValue(h.Count))
}

// Collective reports whether an annotation is about all series of a query together, such as
// the number of histograms that had to be fixed. From a part it would say something else.
func Collective(annotation string) bool { return containsAny(collective, annotation) }

// DoubtfulAnnotation reports whether a warning of the evaluation of the plan shows that the
// answers of its parts cannot be joined. Histograms could not be added up, and the warning
// would name their metric, but the answers of parts have no names any more.
func (p *Plan) DoubtfulAnnotation(warning string) bool {
	return strings.Contains(warning, mixedSchemas) && strings.Contains(warning, `for metric name ""`) &&
		slices.ContainsFunc(p.Leaves, func(l Leaf) bool { return l.Part != nil && l.Part.Adds })
}
