package api

import (
	"net/url"
	"strings"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

const (
	// CompletenessHeader says of an answer whether it is whole or partial.
	CompletenessHeader = "X-Oneprom-Completeness"
	// MissingHeader names the groups that a partial answer lacks data of, as MissingNames
	// writes them.
	MissingHeader = "X-Oneprom-Missing"
	// CacheHeader says of an answer what of it was kept, and of a request whether it may be.
	CacheHeader = "X-Oneprom-Cache"
	// mostMissing bounds how many groups are named.
	mostMissing = 20
)

// MissingNames are the groups of gaps, escaped as in a URL and separated by commas.
func MissingNames(gaps []completeness.Gap) string {
	names := make([]string, 0, mostMissing+1)
	for i, g := range gaps {
		if i == mostMissing {
			names = append(names, "...")
			break
		}
		names = append(names, url.QueryEscape(g.Group))
	}
	return strings.Join(names, ",")
}
