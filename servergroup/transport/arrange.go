package transport

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

func compareSeries(a, b Series) int {
	if c := labels.Compare(a.Labels, b.Labels); c != 0 {
		return c
	}
	return strings.Compare(a.Replica, b.Replica)
}

// Arrange sorts the series of the replica at a URL by labels; most backends have done so. It fails
// if a series is there twice, as that has no defined meaning.
func Arrange(url string, list []Series) ([]Series, error) {
	if !slices.IsSortedFunc(list, compareSeries) {
		slices.SortFunc(list, compareSeries)
	}
	for i := 1; i < len(list); i++ {
		if compareSeries(list[i-1], list[i]) == 0 {
			return nil, &Error{Class: ClassContent, URL: url, Err: fmt.Errorf("series %s is in the answer twice", list[i].Labels)}
		}
	}
	return list, nil
}
