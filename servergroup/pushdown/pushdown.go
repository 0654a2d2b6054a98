// Package pushdown keeps account of what the servers of a group could have evaluated, and why oneprom
// evaluated it from samples instead: for want of knowledge, or because of the configuration.
//
// The unit is a share: what one query has one group evaluate of one of its parts. Shares that PromQL,
// gaps in the data or failures keep here are not counted.
package pushdown

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneprom/oneprom/servergroup/findings"
)

// Reason is why a share was evaluated in oneprom. They are few, as they are values of a label.
type Reason string

// The reasons. Those of the configuration come first.
const (
	Off         Reason = "off"
	MergeAll    Reason = "merge"
	Overlap     Reason = "overlap"
	TimeRange   Reason = "time_range"
	SharedStore Reason = "shared_store"
	Forwarding  Reason = "forward_headers"
	Features    Reason = "features"
	OwnLabels   Reason = "own_labels"
	Contradicts Reason = "findings"
	Dialect     Reason = "dialect"
	Version     Reason = "version"
	Spelling    Reason = "spelling"
	Balancer    Reason = "balancer"
	Unscraped   Reason = "unscraped"
	NoEvidence  Reason = "no_evidence"
	Unknown     Reason = "unknown"
	Answer      Reason = "answer"
)

// advice says of a reason what it is, and what to change. A reason without advice makes no finding:
// that is how the server is.
var advice = map[Reason]string{
	Off:         "the configuration says `pushdown: off`: leave that out, unless it is there to compare",
	MergeAll:    "the configuration says `replicas: merge`: leave that out, unless scrapes do not show what the replicas miss",
	Overlap:     "other groups may hold the same series: give the groups `labels` whose values differ, name by `holds` what one group alone has, or by `copies_of` which groups it has copies of",
	TimeRange:   "its `time_range` does not hold all of their time: let another group hold it, or widen `time_range`",
	Forwarding:  "what its replicas have may depend on who asks: leave out `forward_headers`, or give the group one target",
	Features:    "features that change PromQL are not enabled there and here alike: start the servers and oneprom with the same --enable-feature, and none with promql-delayed-name-removal",
	OwnLabels:   "series of its servers carry a label of `labels` or `replica_labels` themselves: leave the label out there, or name it under `intrinsic_labels`",
	Contradicts: "its data does not fit its configuration: mend what the other findings say",
	Version:     "its servers are Prometheus 2, which evaluates otherwise than Prometheus 3: upgrade them",
	Spelling:    "its data has numbers in `le` or `quantile` in the spelling of Prometheus 2: upgrade what writes them; old blocks matter until they are gone",
	Balancer:    "several servers take turns at one URL: name each of them as a target",
	Unscraped:   "the series are of no target, so that scrapes do not show who misses some: have them written by rules that a group names by `holds`, or give the group one target",
	NoEvidence:  "its scrapes do not show which replica misses something: /api/v1/explain with analyze=true says of a query why",
	Unknown:     "its servers do not show how they evaluate: let oneprom read /api/v1/status/… and the label values of their API",
}

const (
	// window is how long shares are looked back at for findings, at least; at most twice that.
	window = 30 * time.Minute
	// fewest is how many shares there must be for a finding: a few queries are no load.
	fewest = 100
)

// Metrics count shares.
type Metrics struct {
	lost      *prometheus.CounterVec
	evaluated *prometheus.CounterVec
}

// NewMetrics returns the metrics, registered.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_pushdown_lost_total",
			Help: "Shares of queries that were evaluated by oneprom, from samples, for want of knowledge or because of the configuration, by reason.",
		}, []string{"reason", "group", "region"}),
		evaluated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_pushdown_evaluated_total",
			Help: "Shares of queries that a server of the group evaluated.",
		}, []string{"group", "region"}),
	}
	reg.MustRegister(m.lost, m.evaluated)
	return m
}

// ForgetGroup removes the series of a group.
func (m *Metrics) ForgetGroup(name string) {
	m.lost.DeletePartialMatch(prometheus.Labels{"group": name})
	m.evaluated.DeletePartialMatch(prometheus.Labels{"group": name})
}

// Account counts the shares of one group. It is safe for concurrent use; nil counts nothing.
type Account struct {
	// Findings say what to change, where most shares are lost for one reason.
	Findings *findings.Recent

	metrics       *Metrics
	group, region string

	mtx           sync.Mutex // guards the fields below
	began         time.Time  // when recent began
	recent, older tally
}

// tally counts shares.
type tally struct {
	all  int
	lost map[Reason]int
}

// NewAccount returns the account of a group.
func (m *Metrics) NewAccount(group, region string, logger *slog.Logger) *Account {
	return &Account{Findings: findings.New(logger), metrics: m, group: group, region: region}
}

// Evaluated counts a share that a server evaluated.
func (a *Account) Evaluated(now time.Time) {
	if a == nil {
		return
	}
	a.metrics.evaluated.WithLabelValues(a.group, a.region).Inc()
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.turn(now)
	a.recent.all++
}

// Lost counts a share that oneprom evaluated. No reason is none that is counted.
func (a *Account) Lost(why Reason, now time.Time) {
	if a == nil || why == "" {
		return
	}
	a.metrics.lost.WithLabelValues(string(why), a.group, a.region).Inc()
	if text := advice[why]; a.isMost(why, now) && text != "" {
		a.Findings.Add(string(why), "most of what its servers could evaluate of queries is evaluated by oneprom, from samples, because "+text, now)
	}
}

// isMost counts a lost share, and reports whether most of the recent shares are lost for that reason.
func (a *Account) isMost(why Reason, now time.Time) bool {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.turn(now)
	a.recent.all++
	if a.recent.lost == nil {
		a.recent.lost = map[Reason]int{}
	}
	a.recent.lost[why]++
	all := a.recent.all + a.older.all
	return all >= fewest && 2*(a.recent.lost[why]+a.older.lost[why]) > all
}

// turn begins a new window if the last one is over.
func (a *Account) turn(now time.Time) {
	switch past := now.Sub(a.began); {
	case past >= 2*window:
		a.older, a.recent, a.began = tally{}, tally{}, now
	case past >= window:
		a.older, a.recent, a.began = a.recent, tally{}, now
	}
}

// Refusal is why a server does not evaluate a share: in words, and as a reason. The zero value is none.
type Refusal struct {
	Why    string
	Reason Reason // "" is one that is not counted
}
