package transport

import (
	"strings"

	"github.com/prometheus/prometheus/util/annotations"
)

// OfData tells what a backend says of its data, which is that they are not whole, from
// annotations of PromQL, and from how many of these there are.
func OfData(text string) bool {
	return !strings.HasPrefix(text, annotations.PromQLWarning.Error()) && !strings.HasPrefix(text, annotations.PromQLInfo.Error()) && !Omits(text)
}

// Omits tells that there are more annotations than the answer shows.
func Omits(text string) bool {
	return strings.Contains(text, "more warning annotations omitted") || strings.Contains(text, "more info annotations omitted")
}
