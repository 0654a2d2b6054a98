package servergroup

import (
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// GroupStatus describes a group, as /api/v1/status/groups shows it.
type GroupStatus struct {
	Name            string            `json:"name"`
	Region          string            `json:"region,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	IntrinsicLabels []string          `json:"intrinsicLabels,omitempty"`
	ReplicaLabels   []string          `json:"replicaLabels,omitempty"`
	// Holds are selectors of series to which MinTime and MaxTime do not apply.
	Holds []string `json:"holds,omitempty"`
	// CopiesOf are the names of the groups whose series it has copies of.
	CopiesOf []string `json:"copiesOf,omitempty"`
	// MinTime and MaxTime bound the samples that the group is asked for now; nil is no bound.
	MinTime *time.Time `json:"minTime,omitempty"`
	MaxTime *time.Time `json:"maxTime,omitempty"`
	// Findings are mistakes in the group's configuration, as its targets, its replicas and
	// answers have shown them, and what audits have found its replicas to lack.
	Findings []string         `json:"findings,omitempty"`
	Replicas []replica.Status `json:"replicas"`
}

// Status describes all groups, in the order of the configuration.
func (s *Set) Status() []GroupStatus {
	list := []GroupStatus{}
	gen := s.current.Load()
	if gen == nil {
		return list
	}
	for _, e := range gen.entries {
		for _, g := range *e.groups.Load() {
			list = append(list, g.status(s.opts.Now(), e.findingsOf(g)))
		}
	}
	return list
}

// status describes the group. Its targets have shown the findings given.
func (g *group) status(now time.Time, ofTargets []string) GroupStatus {
	lo, hi := g.cfg.TimeRange.Bounds(now)
	st := GroupStatus{
		Name:            g.cfg.Name,
		Region:          g.cfg.Region,
		Labels:          g.cfg.Labels,
		IntrinsicLabels: g.cfg.IntrinsicLabels,
		ReplicaLabels:   g.cfg.ReplicaLabels,
		Holds:           g.cfg.Holds,
		CopiesOf:        g.cfg.CopiesOf,
		Replicas:        []replica.Status{},
	}
	if lo > config.MinTime {
		st.MinTime = timeOf(lo)
	}
	if hi < config.MaxTime {
		st.MaxTime = timeOf(hi)
	}
	st.Findings = append(ofTargets, g.cfg.PublicFindings(g.findings.List(now))...)
	st.Findings = append(st.Findings, g.cfg.PublicFindings(g.audits.Findings.List(now))...)
	st.Findings = append(st.Findings, g.pushdown.Findings.List(now)...)
	st.Findings = append(st.Findings, replica.ExternalLabelFindings(&g.cfg, *g.replicas.Load())...)
	for _, r := range *g.replicas.Load() {
		st.Replicas = append(st.Replicas, r.Status())
	}
	return st
}

func timeOf(ms int64) *time.Time {
	t := time.UnixMilli(ms).UTC()
	return &t
}
