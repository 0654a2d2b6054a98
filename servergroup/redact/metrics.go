package redact

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Gatherer returns a gatherer that hides what may be secret in URLs in the labels of another one.
func Gatherer(of prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := of.Gather()
		for _, f := range families {
			for _, m := range f.Metric {
				hideLabels(m)
			}
		}
		return families, err
	})
}

// hideLabels replaces labels instead of changing them: the metric uses them again.
func hideLabels(m *dto.Metric) {
	copied := false
	for i, l := range m.Label {
		hidden := URLs(l.GetValue())
		if hidden == l.GetValue() {
			continue
		}
		if !copied {
			m.Label, copied = append([]*dto.LabelPair(nil), m.Label...), true
		}
		m.Label[i] = &dto.LabelPair{Name: l.Name, Value: &hidden}
	}
}
