package world

import "slices"

// Mixed is the aligned world on servers of several kinds: in each HA pair one member is a Prometheus 2, and there are several archives, of
// which a test is to take one (World.With): archive-prometheus2, archive-victoriametrics, archive-influxdb. Floats have few decimals, and
// no target tells when its counters started: VictoriaMetrics and Prometheus 2 could not store that.
func Mixed(scale int) *World {
	w := Aligned(scale)
	w.Name = "mixed"
	for _, r := range w.Truth.Regions {
		r.StartTimes, r.Decimals = false, true
	}
	w.Groups[0].Replicas[1].Kind = Prometheus2
	w.Groups[1].Replicas[0].Kind = Prometheus2
	archive := w.Groups[2]
	w.Groups = w.Groups[:2]
	for _, a := range []struct {
		name string
		kind Kind
	}{{"prometheus2", Prometheus2}, {"victoriametrics", VictoriaMetrics}, {"influxdb", InfluxDB}} {
		g, s := archive, *archive.Replicas[0]
		g.Name = "archive-" + a.name
		s.Name, s.Kind = g.Name, a.kind
		g.Replicas = []*Server{&s}
		w.Groups = append(w.Groups, g)
	}
	return w
}

// TwoStores is the world without a Prometheus: each member of an HA pair that scrapes both regions has written to a VictoriaMetrics of its
// own, with its external labels. The members share a clock. Six hours.
func TwoStores(scale int) *World {
	eu, us := fleet("eu", scale), fleet("us", scale)
	eu.Decimals, us.Decimals = true, true
	both := []*Region{eu, us}
	end := Begin + 6*hour
	all := Span{0, end + hour}
	faults := [2]*Faults{
		{Outages: spans(0, 200, 207, 270, 281, 330, 333)},
		{Outages: spans(0, 220, 224, 300, 308, 350, 352, 357, 361)},
	}
	// Targets of both regions may have the same name: their faults are drawn together.
	scatter(&Region{Name: "both", Targets: slices.Concat(eu.Targets, us.Targets)}, faults, Span{Begin + 10*minute, end - 5*minute}, 16, true)
	g := Group{Name: "stores", ReplicaLabels: []string{"replica"}, Intrinsic: []string{"region"}}
	for i, name := range []string{"a", "b"} {
		g.Replicas = append(g.Replicas, &Server{
			Name: "store-" + name, Kind: VictoriaMetrics, Regions: both, RegionLabel: true,
			ExternalLabels: map[string]string{"replica": name}, Keep: all, HeadFrom: end, Faults: faults[i], Clock: onTime,
		})
	}
	return &World{
		Name:   "two stores",
		Begin:  Begin,
		End:    end,
		Truth:  &Server{Name: "truth", Regions: both, RegionLabel: true, Keep: all, HeadFrom: end, Clock: onTime},
		Groups: []Group{g},
	}
}
