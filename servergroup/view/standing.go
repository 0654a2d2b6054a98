package view

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/replica"
)

// Standing is what answers of some groups stand on, apart from the samples that they have.
type Standing struct {
	// Generation is another one if answers of the groups may be others. It is the same in another process that
	// has the same configuration and finds the same servers, and after a restart of any of these.
	Generation string
	// Groups are the names of the groups, and of their entries.
	Groups []string
	// Settled is the time (ms) from which on samples may still come.
	Settled int64
	// Since is the time (ms) when a server was last seen to have lost or got samples of earlier times.
	Since int64
	// Unsure is the reason why an answer of now may lack something that shows later; "" if there is none.
	Unsure string
	// WholeDays reports whether a server may answer lookups for whole days, whatever their window.
	WholeDays bool
	// Unknown is the reason why nobody can say whether an earlier answer is right; "" if there is none. Of
	// the rest, nothing is set then.
	Unknown string
}

// StandingOf returns what answers to selectors stand on.
func (v *View) StandingOf(selectors [][]*labels.Matcher) Standing {
	unknown := func(why string) Standing { return Standing{Unknown: why} }
	s := Standing{Settled: v.Now.UnixMilli()}
	var parts []string
	for _, g := range v.Groups {
		if !slices.ContainsFunc(selectors, func(ms []*labels.Matcher) bool { return v.Concerns(ms)(g) }) {
			continue
		}
		if why := g.unknown(v.Now); why != "" {
			return unknown(why)
		}
		if g.lacks() {
			s.Unsure = "a replica does not answer"
		}
		s.Groups = append(s.Groups, g.Config.Name, g.Entry)
		part := []any{g.Digests[g.Config]}
		var settling time.Duration
		for _, r := range g.Replicas {
			p := r.LastProfile()
			if p == nil {
				return unknown("a replica has never answered")
			}
			settling = max(settling, p.Settling)
			s.WholeDays = s.WholeDays || p.Dialect.WholeDays
			s.Since = max(s.Since, r.Rewritten().UnixMilli())
			part = append(part, p.Kind, p.External)
		}
		if g.Config.Settle != 0 {
			settling = time.Duration(g.Config.Settle)
		}
		s.Settled = min(s.Settled, v.Now.Add(-settling).UnixMilli())
		raw, err := json.Marshal(part)
		if err != nil {
			return unknown(err.Error())
		}
		parts = append(parts, string(raw))
	}
	if len(parts) == 0 {
		return unknown("no group may have its series")
	}
	slices.Sort(parts) // the order of groups does not change an answer
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	s.Generation = hex.EncodeToString(sum[:16])
	return s
}

// unknown returns why nobody can say what the group's answers stand on; "" if it is known.
func (g Group) unknown(now time.Time) string {
	switch {
	case g.Config.Forwards():
		return "what a group answers may depend on who asks (forward_headers)"
	case len(g.Replicas) == 0:
		return "a group has no targets"
	case slices.ContainsFunc(g.Replicas, (*replica.Replica).HasDataFindings), len(g.Findings.List(now)) > 0:
		return "the data of a group does not fit its configuration"
	}
	return ""
}

// lacks reports whether a replica may be away.
func (g Group) lacks() bool {
	return slices.ContainsFunc(g.Replicas, func(r *replica.Replica) bool { return !r.Answered() || !r.Health.Usable() || r.Health.Doubted() })
}
