package transport

import (
	"strings"

	"github.com/prometheus/prometheus/util/annotations"
)

// OfData reports whether a warning is about the data of a backend, which are then incomplete: it is
// neither an annotation of PromQL, nor about the number of these.
func OfData(text string) bool {
	return !strings.HasPrefix(text, annotations.PromQLWarning.Error()) && !strings.HasPrefix(text, annotations.PromQLInfo.Error()) && !Omits(text)
}

// Omits reports whether a warning means that there are more annotations than the response shows.
func Omits(text string) bool {
	return strings.Contains(text, "more warning annotations omitted") || strings.Contains(text, "more info annotations omitted")
}
