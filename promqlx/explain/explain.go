// Package explain describes what becomes of a query, for people and programs.
//
// New makes an Explanation of the plan of a query and, if the query was executed, of the
// Trace of that execution. It describes the very values that are executed: no second
// planner makes up what it says. An Explanation prints as JSON and, by Text, as a tree.
package explain

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// Seconds is a time since 1970 or a duration, in seconds.
type Seconds float64

func seconds(ms int64) Seconds { return Seconds(ms) / 1000 }

// SecondsOf returns a time or a duration (ms).
func SecondsOf(ms int64) Seconds { return seconds(ms) }

func (s Seconds) String() string { return strconv.FormatFloat(float64(s), 'f', 3, 64) }

func (s Seconds) duration() time.Duration {
	return time.Duration(math.Round(float64(s)*1000)) * time.Millisecond
}

// Explanation is what becomes of a query.
type Explanation struct {
	Query string `json:"query"`
	// Steps are the instants of the query; there is one for an instant query.
	Steps         Steps   `json:"steps"`
	LookbackDelta Seconds `json:"lookbackDelta"`
	// Expression is what the engine evaluates. $1, $2 … stand for the parts.
	Expression string `json:"expression"`
	// PlanDigest is the digest that the query log shows. It is the same for the same query
	// at other times, while the same groups are concerned.
	PlanDigest string `json:"planDigest"`
	// NoParts is the reason why there are no parts; "" if there are some.
	NoParts string `json:"noParts,omitempty"`
	// NoStretches is the reason why there are no Stretches although groups hold samples of other times than
	// others; "" if there is no need to divide the steps.
	NoStretches string `json:"noStretches,omitempty"`
	// NotWhole are the aggregations that partitions might answer whole, but for what was seen.
	NotWhole []NotWhole `json:"notWhole,omitempty"`
	Parts    []Part     `json:"parts"`
	// Selectors are the selectors of Expression itself. Their series are fetched.
	Selectors []Selector `json:"selectors"`
	// Stretches explain the stretches that the steps are divided into, because other groups hold the
	// samples that they need. There are no Parts and Selectors then, and Expression is evaluated in each.
	Stretches []*Explanation `json:"stretches,omitempty"`
	// Cache describes what is kept of the answer; nil for an instant query, and without a cache. An analysis
	// evaluates all steps nevertheless.
	Cache *Kept `json:"cache,omitempty"`
	// Analysis describes the execution; nil if there was none.
	Analysis *Analysis `json:"analysis,omitempty"`
}

// Steps are the instants Start, Start+Step, … End. Step is 0 if there is just one.
type Steps struct {
	Start Seconds `json:"start"`
	End   Seconds `json:"end"`
	Step  Seconds `json:"step"`
	Count int64   `json:"count"`
}

// StepsOf returns the steps from one time to another one (ms), which is one of them.
func StepsOf(start, end, step int64) Steps {
	return Steps{seconds(start), seconds(end), seconds(step), (end-start)/step + 1}
}

// Kept is what is kept of an answer.
type Kept struct {
	// Outcome is hit, partial, miss or bypass.
	Outcome string `json:"outcome"`
	// Reason is why the cache is not asked, or why what is evaluated now is not kept; "" if there is none.
	Reason string `json:"reason,omitempty"`
	// Blocks is how many blocks of steps the answer has, and Found how many of them are kept.
	Blocks int `json:"blocks,omitempty"`
	Found  int `json:"found,omitempty"`
	// Oldest and Newest are how long ago the oldest and the newest of them were evaluated.
	Oldest Seconds `json:"oldest,omitempty"`
	Newest Seconds `json:"newest,omitempty"`
	// SettledUntil is the last time of steps that are kept.
	SettledUntil Seconds `json:"settledUntil,omitempty"`
	// Missing are the steps that would be evaluated.
	Missing []Steps `json:"missing,omitempty"`
}

// Part is a sub-expression that partitions answer.
type Part struct {
	Name       string `json:"name"`
	Expression string `json:"expression"`
	Why        string `json:"why"`
	Steps      Steps  `json:"steps"`
	// Carries are the injected labels that the answers carry.
	Carries []string `json:"carries"`
	// ByTarget reports whether some targets may be answered apart from the others.
	ByTarget bool `json:"byTarget"`
	// ByName reports the same of the series that rules have written.
	ByName     bool        `json:"byName"`
	Selectors  []Selector  `json:"selectors"`
	Partitions []Partition `json:"partitions"`
}

// NotWhole is an aggregation that partitions are not asked to answer whole. Why is what was seen.
type NotWhole struct {
	Expression string `json:"expression"`
	Why        string `json:"why"`
}

// Partition describes how a partition answers a part. Skipped is set if it is not asked,
// Outlook if the query was not executed, Pieces and Failed if it was.
type Partition struct {
	Groups []Member `json:"groups"`
	// Labels are the labels that are injected into all its series.
	Labels map[string]string `json:"labels,omitempty"`
	// Skipped is the reason why the partition is not asked; "" if it is.
	Skipped string `json:"skipped,omitempty"`
	// Outlook is how it may answer, by the configuration alone.
	Outlook *Outlook `json:"outlook,omitempty"`
	// Pieces are what its share of the part was divided into.
	Pieces []Piece `json:"pieces,omitempty"`
	// Failed is the reason why there is no answer; "" if there is one.
	Failed string `json:"failed,omitempty"`
}

// Member is a group of a partition.
type Member struct {
	Name string `json:"name"`
	// Replicas is the number of replicas; nil if only service discovery knows it.
	Replicas *int `json:"replicas,omitempty"`
	// Series says which of its series are meant, where `holds` divides it; "" for all.
	Series string `json:"series,omitempty"`
}

// Where a part is evaluated: the values of Execution.
const (
	Remotely = "remote"
	Locally  = "local"
)

// Outlook is how a partition may answer.
type Outlook struct {
	// Execution is Remotely if a replica may evaluate the part, else Locally. Why is the
	// reason.
	Execution string `json:"execution"`
	Why       string `json:"why"`
	// Text is the query that a replica is sent.
	Text string `json:"text,omitempty"`
}

// Piece is a share of a partition's answer: some steps, and perhaps only some targets.
type Piece struct {
	// Steps are the instants at which the piece is evaluated, Turns those at which its
	// answer counts; nil if all count.
	Steps Steps   `json:"steps"`
	Turns []Steps `json:"turns,omitempty"`
	// Replica is the URL of the replica whose samples alone are used; "" if the samples of
	// all replicas are merged. Why is the reason.
	Replica string `json:"replica,omitempty"`
	Why     string `json:"why"`
	// AnsweredBy is the URL of the replica that evaluated instead of Replica, which was late
	// or failed. It has missed no samples, either. "" if Replica answered.
	AnsweredBy string `json:"answeredBy,omitempty"`
	// Targets are the matchers that narrow the piece to some targets or to some names of
	// metrics; "" if there are none.
	Targets string `json:"targets,omitempty"`
	// Execution is Remotely or Locally. Local is the reason for the latter.
	Execution string `json:"execution"`
	Local     string `json:"local,omitempty"`
	// Text is the query that the replica was sent.
	Text string `json:"text,omitempty"`
	// Milliseconds is how long the answer took. Series and Samples count its content.
	Milliseconds float64 `json:"ms"`
	Series       int     `json:"series"`
	Samples      int     `json:"samples"`
	// Fetches are the fetches of its selectors where it was evaluated locally.
	Fetches []Fetch `json:"fetches,omitempty"`
}

// Selector is a selector, with the groups that it concerns.
type Selector struct {
	Selector string `json:"selector"`
	// MinTime and MaxTime bound the samples, inclusive.
	MinTime Seconds `json:"minTime"`
	MaxTime Seconds `json:"maxTime"`
	// Steps are the only instants at which the selector is evaluated; nil if each sample
	// counts.
	Steps *Steps `json:"steps,omitempty"`
	// Unused marks the second argument of info(): it is not fetched as it is written.
	Unused bool    `json:"unused,omitempty"`
	Groups []Route `json:"groups"`
	// Fetch is what was fetched for it; nil if nothing was.
	Fetch *Fetch `json:"fetch,omitempty"`
}

// Route is whether a group is asked.
type Route struct {
	Name   string `json:"name"`
	Region string `json:"region,omitempty"`
	Asked  bool   `json:"asked"`
	// Because is why the group is asked for copies of what others may keep; "" if that is not so.
	Because string `json:"because,omitempty"`
	// Only is the selector of `holds` that the group is asked for; "" if it is asked for all that
	// the selector matches.
	Only string `json:"only,omitempty"`
	// Skipped is the reason why the group is not asked; "" if it is.
	Skipped string `json:"skipped,omitempty"`
}

// Fetch is a fetch of raw samples.
type Fetch struct {
	Selector string `json:"selector"`
	// Milliseconds is how long it took until the series had arrived.
	Milliseconds float64 `json:"ms"`
	// Series counts the series after the merge of replicas. Samples counts the samples of
	// them that the engine has read.
	Series  int64 `json:"series"`
	Samples int64 `json:"samples"`
}

// Analysis is the outcome of an execution.
type Analysis struct {
	Milliseconds float64 `json:"ms"`
	// Bytes is how many bytes of responses were held, for all fetches and remote
	// evaluations together.
	Bytes      int64  `json:"bytes"`
	ResultType string `json:"resultType"`
	// Series and Samples count the content of the result.
	Series  int `json:"series"`
	Samples int `json:"samples"`
	// Completeness is what the result has of each group, in the order of the
	// configuration.
	Completeness []Share `json:"completeness"`
	// Warnings and Infos are the annotations of the result. JSON answers have them beside
	// the explanation.
	Warnings []string `json:"-"`
	Infos    []string `json:"-"`
}

// What a result has of a group: the values of Share.State.
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
	// MinTime and MaxTime bound the samples that were wanted, inclusive. They are nil if no
	// samples were wanted.
	MinTime *Seconds `json:"minTime,omitempty"`
	MaxTime *Seconds `json:"maxTime,omitempty"`
	// Reason is why the state is not "whole".
	Reason string `json:"reason,omitempty"`
}

// Shares returns what the result has of each group that a selector might concern. gaps are
// what the result lacks.
func (e *Explanation) Shares(gaps []completeness.Gap) []Share {
	out := []Share{}
	for _, s := range e.allSelectors() {
		for _, g := range s.Groups {
			i := slices.IndexFunc(out, func(known Share) bool { return known.Group == g.Name })
			if i < 0 {
				i = len(out)
				out = append(out, Share{Group: g.Name, Region: g.Region, State: shareSkipped, Reason: g.Skipped})
			}
			if g.Asked {
				out[i].addWanted(s.MinTime, s.MaxTime)
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

// allSelectors returns the selectors of the expression and of its parts, in all stretches.
func (e *Explanation) allSelectors() []Selector {
	list := slices.Clone(e.Selectors)
	for _, p := range e.Parts {
		list = append(list, p.Selectors...)
	}
	for _, stretch := range e.Stretches {
		list = append(list, stretch.allSelectors()...)
	}
	return list
}

// addWanted records that samples of the group were wanted.
func (s *Share) addWanted(from, to Seconds) {
	if s.State != shareSkipped {
		from, to = min(from, *s.MinTime), max(to, *s.MaxTime)
	}
	s.State, s.Reason, s.MinTime, s.MaxTime = shareWhole, "", &from, &to
}

// milliseconds converts a duration to ms.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
