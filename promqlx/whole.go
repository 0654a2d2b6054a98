package promqlx

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/partition"
)

// requireWholeSeries fails if the answer to an expression lacks data of groups, and one of its series
// might have other values with that data. Where each series is made of one partition, only the
// partitions are left out that lack data. If such a partition has answered in part, the error is an
// inconsistentError, which asks for a plan without it.
func requireWholeSeries(ctx context.Context, e parser.Expr, planned *plan.Routed) error {
	ledger := planned.View.Ledger
	lacking, err := ledger.Lacking()
	if err != nil || len(lacking) == 0 {
		return err
	}
	routed := planned.Divided()
	carries, ok := plan.Separable(ctx, e, routed.Layout())
	lost, missing := lostPartitions(routed.Partitions, lacking)
	if !ok || len(lost) == 0 || len(lost) == len(routed.Partitions) {
		return incomplete(lacking)
	}
	labels := map[string][]map[string]string{} // by group
	answered := false
	for _, p := range lost {
		told := maps.Clone(p.Labels())
		maps.DeleteFunc(told, func(name, value string) bool { return value == "" || !slices.Contains(carries, name) })
		for _, group := range p.Groups() {
			answered = answered || ledger.Answered(group)
			labels[group] = append(labels[group], told)
		}
	}
	if answered {
		return &inconsistentError{missing}
	}
	for group, told := range labels {
		ledger.SetLost(group, told)
	}
	return nil
}

// lostPartitions returns the partitions with groups that are lacking, and all groups of these.
func lostPartitions(all []*partition.Partition, lacking completeness.Missing) ([]*partition.Partition, completeness.Missing) {
	missing := completeness.Missing{}
	for name, err := range lacking {
		missing[name] = fmt.Errorf("it is left out: %w", err)
	}
	for {
		var lost []*partition.Partition
		known := len(missing)
		for _, p := range all {
			groups := p.Groups()
			at := slices.IndexFunc(groups, func(name string) bool { return missing[name] != nil })
			if at < 0 {
				continue
			}
			lost = append(lost, p)
			for _, name := range groups {
				if missing[name] == nil {
					missing[name] = fmt.Errorf("it is left out, as it may have series of server group %q, which is missing", groups[at])
				}
			}
		}
		if len(missing) == known { // else a group may be in several partitions, by its portions
			return lost, missing
		}
	}
}

// incomplete returns the error of an answer whose series are made of several groups, some of which
// are lacking.
func incomplete(lacking completeness.Missing) error {
	e := &completeness.UnavailableError{}
	for _, name := range slices.Sorted(maps.Keys(lacking)) {
		e.Lacks = append(e.Lacks, completeness.Lack{Group: name, Reason: lacking[name].Error()})
	}
	return e
}
