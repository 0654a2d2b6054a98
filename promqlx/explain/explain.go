// Package explain says what becomes of a query. What is explained is the plan and the
// Trace of its execution, and not something that is thought up beside them.
package explain

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// Seconds are a time since 1970, or a duration.
type Seconds float64

func seconds(ms int64) Seconds { return Seconds(ms) / 1000 }

func (s Seconds) String() string { return strconv.FormatFloat(float64(s), 'f', 3, 64) }

func (s Seconds) duration() time.Duration {
	return time.Duration(math.Round(float64(s)*1000)) * time.Millisecond
}

// Explanation is what becomes of a query.
type Explanation struct {
	Query string `json:"query"`
	// Steps are those of the query; there is one for an instant query.
	Steps         Steps   `json:"steps"`
	LookbackDelta Seconds `json:"lookbackDelta"`
	// Expression is evaluated by the engine. $1, $2 … stand for the parts.
	Expression string `json:"expression"`
	// PlanDigest is that of the query log: the same for the same query at other times,
	// while the same groups are concerned.
	PlanDigest string `json:"planDigest"`
	// NoParts says why there are no parts; "" if there are.
	NoParts string `json:"noParts,omitempty"`
	Parts   []Part `json:"parts"`
	// Selectors are those whose series are fetched for Expression itself.
	Selectors []Selector `json:"selectors"`
	// Analysis is of the execution; nil if there was none.
	Analysis *Analysis `json:"analysis,omitempty"`
}

// Steps are the instants Start, Start+Step, … End. Step is 0 if there is just
// one.
type Steps struct {
	Start Seconds `json:"start"`
	End   Seconds `json:"end"`
	Step  Seconds `json:"step"`
	Count int64   `json:"count"`
}

// Part is a sub-expression that partitions answer.
type Part struct {
	Name       string `json:"name"`
	Expression string `json:"expression"`
	Why        string `json:"why"`
	Steps      Steps  `json:"steps"`
	// Carries are the injected labels of the answers.
	Carries []string `json:"carries"`
	// ByTarget tells that some targets may be answered apart from the others.
	ByTarget bool `json:"byTarget"`
	// ByName tells the same of series that rules have written.
	ByName     bool        `json:"byName"`
	Selectors  []Selector  `json:"selectors"`
	Partitions []Partition `json:"partitions"`
}

// Partition is how a partition answers a part: Skipped, Outlook, or what
// became of it.
type Partition struct {
	Groups []Member `json:"groups"`
	// Labels are the injected labels of all its series.
	Labels map[string]string `json:"labels,omitempty"`
	// Skipped says why it is not asked.
	Skipped string `json:"skipped,omitempty"`
	// Outlook is what the configuration alone says.
	Outlook *Outlook `json:"outlook,omitempty"`
	// Pieces are what it was divided into.
	Pieces []Piece `json:"pieces,omitempty"`
	// Failed says why there is no answer; "" if there is.
	Failed string `json:"failed,omitempty"`
}

// Member is a group of a partition.
type Member struct {
	Name string `json:"name"`
	// Replicas is their number; it is not there if only service discovery knows it.
	Replicas *int `json:"replicas,omitempty"`
}

// Where a part is evaluated.
const (
	Remotely = "remote"
	Locally  = "local"
)

// Outlook is how a partition may answer.
type Outlook struct {
	// Execution is "remote" if a replica may evaluate, and else "local".
	Execution string `json:"execution"`
	Why       string `json:"why"`
	// Text is what a replica is sent.
	Text string `json:"text,omitempty"`
}

// Piece is a share of a partition's answer.
type Piece struct {
	// Steps are those at which it is evaluated, Turns those at which it counts: nil if
	// at all.
	Steps Steps   `json:"steps"`
	Turns []Steps `json:"turns,omitempty"`
	// Replica is the URL of the one whose samples alone are used; "" if those of all
	// are merged. Why is the reason.
	Replica string `json:"replica,omitempty"`
	Why     string `json:"why"`
	// AnsweredBy is the URL of the replica that evaluated instead, one that is as whole:
	// Replica was late, or failed. "" if it was Replica.
	AnsweredBy string `json:"answeredBy,omitempty"`
	// Targets are the matchers that narrow it to some targets, and to some names of
	// metrics; "" if there are none.
	Targets string `json:"targets,omitempty"`
	// Execution is "remote" or "local", and then Local is the reason.
	Execution string `json:"execution"`
	Local     string `json:"local,omitempty"`
	// Text is what the replica was sent.
	Text string `json:"text,omitempty"`
	// Milliseconds is how long the answer took, Series and Samples are how many there
	// are in it.
	Milliseconds float64 `json:"ms"`
	Series       int     `json:"series"`
	Samples      int     `json:"samples"`
	// Fetches are those of its selectors where it was evaluated here.
	Fetches []Fetch `json:"fetches,omitempty"`
}

// Selector is a selector with what is known about the groups.
type Selector struct {
	Selector string `json:"selector"`
	// MinTime and MaxTime bound the samples, inclusive.
	MinTime Seconds `json:"minTime"`
	MaxTime Seconds `json:"maxTime"`
	// Steps are the only instants at which it is looked at, nil if each sample counts.
	Steps *Steps `json:"steps,omitempty"`
	// Unused marks the second argument of info(), which is not fetched as it stands.
	Unused bool    `json:"unused,omitempty"`
	Groups []Route `json:"groups"`
	// Fetch is of the execution.
	Fetch *Fetch `json:"fetch,omitempty"`
}

// Route says whether a group is asked.
type Route struct {
	Name   string `json:"name"`
	Region string `json:"region,omitempty"`
	Asked  bool   `json:"asked"`
	// Skipped says why it is not asked.
	Skipped string `json:"skipped,omitempty"`
}

// Fetch is a fetch of raw samples.
type Fetch struct {
	Selector string `json:"selector"`
	// Milliseconds is how long it took until the series were there.
	Milliseconds float64 `json:"ms"`
	// Series is how many were fetched, after the merge of replicas; Samples is how
	// many were read of them.
	Series  int64 `json:"series"`
	Samples int64 `json:"samples"`
}

// Analysis is what an execution came to.
type Analysis struct {
	Milliseconds float64 `json:"ms"`
	// Bytes is how many of backends' answers were held, for all fetches and remote
	// answers together.
	Bytes      int64  `json:"bytes"`
	ResultType string `json:"resultType"`
	// Series and Samples are how many there are in the result.
	Series  int `json:"series"`
	Samples int `json:"samples"`
	// Completeness is what the result has of each group, in the order of the
	// configuration.
	Completeness []Share `json:"completeness"`
	// Warnings and Infos are those of the result; in JSON they are beside the
	// explanation.
	Warnings []string `json:"-"`
	Infos    []string `json:"-"`
}

// What a result has of a group.
const (
	shareWhole   = "whole"
	sharePartial = "partial" // some is missing, or all
	shareSkipped = "skipped" // it was not asked
)

// Share is what a result has of a group.
type Share struct {
	Group  string `json:"group"`
	Region string `json:"region,omitempty"`
	// State is "whole", "partial" or "skipped".
	State string `json:"state"`
	// MinTime and MaxTime bound the samples that were wanted, inclusive. They are nil
	// if none were.
	MinTime *Seconds `json:"minTime,omitempty"`
	MaxTime *Seconds `json:"maxTime,omitempty"`
	// Reason is why it is not whole.
	Reason string `json:"reason,omitempty"`
}

// Shares is what the result has of each group that a selector might concern; gaps are
// what it lacks.
func (e *Explanation) Shares(gaps []completeness.Gap) []Share {
	selectors := slices.Clone(e.Selectors)
	for _, p := range e.Parts {
		selectors = append(selectors, p.Selectors...)
	}
	out := []Share{}
	for _, s := range selectors {
		for _, g := range s.Groups {
			i := slices.IndexFunc(out, func(known Share) bool { return known.Group == g.Name })
			if i < 0 {
				i = len(out)
				out = append(out, Share{Group: g.Name, Region: g.Region, State: shareSkipped, Reason: g.Skipped})
			}
			if g.Asked {
				out[i].wants(s.MinTime, s.MaxTime)
			}
		}
	}
	for _, gap := range gaps {
		if i := slices.IndexFunc(out, func(s Share) bool { return s.Group == gap.Group }); i >= 0 {
			out[i].State, out[i].Reason = sharePartial, gap.Reason
		}
	}
	return out
}

// wants takes in that samples of the group were wanted.
func (s *Share) wants(from, to Seconds) {
	if s.State != shareSkipped {
		from, to = min(from, *s.MinTime), max(to, *s.MaxTime)
	}
	s.State, s.Reason, s.MinTime, s.MaxTime = shareWhole, "", &from, &to
}

// milliseconds is a duration in ms.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
