package servergroup

import (
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// GroupStatus is what /api/v1/status/groups tells of a group.
type GroupStatus struct {
	Name            string            `json:"name"`
	Region          string            `json:"region,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	IntrinsicLabels []string          `json:"intrinsicLabels,omitempty"`
	ReplicaLabels   []string          `json:"replicaLabels,omitempty"`
	// MinTime and MaxTime bound the samples the group is asked for now.
	MinTime *time.Time `json:"minTime,omitempty"`
	MaxTime *time.Time `json:"maxTime,omitempty"`
	// Findings are what is wrong with the group's configuration, its targets and
	// what answers have shown of both.
	Findings []string         `json:"findings,omitempty"`
	Replicas []replica.Status `json:"replicas"`
}

// Status tells of all groups, in configured order.
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

// status tells of the group; about are the findings about its targets.
func (g *group) status(now time.Time, about []string) GroupStatus {
	lo, hi := g.cfg.TimeRange.Bounds(now)
	st := GroupStatus{
		Name:            g.cfg.Name,
		Region:          g.cfg.Region,
		Labels:          g.cfg.Labels,
		IntrinsicLabels: g.cfg.IntrinsicLabels,
		ReplicaLabels:   g.cfg.ReplicaLabels,
		Replicas:        []replica.Status{},
	}
	if lo > config.MinTime {
		st.MinTime = timeOf(lo)
	}
	if hi < config.MaxTime {
		st.MaxTime = timeOf(hi)
	}
	st.Findings = append(about, g.cfg.PublicFindings(g.found.List(now))...)
	st.Findings = append(st.Findings, replica.DifferentExternalLabels(&g.cfg, *g.replicas.Load())...)
	for _, r := range *g.replicas.Load() {
		st.Replicas = append(st.Replicas, r.Status())
	}
	return st
}

func timeOf(ms int64) *time.Time {
	t := time.UnixMilli(ms).UTC()
	return &t
}
