package world

import (
	"fmt"
	"time"
)

// Aligned is the world in which the members of an HA pair share a clock to the millisecond, so that the union of their samples is the
// truth, bit for bit. Six hours; the pairs keep the last three, an archive holds the first four at full resolution. scale multiplies the
// number of targets: 20 per region at scale 1.
func Aligned(scale int) *World {
	eu, us := fleet("eu", scale), fleet("us", scale)
	us.StartTimes = true
	end := Begin + 6*hour
	kept, archived := Span{Begin + 3*hour, end}, Span{0, Begin + 4*hour}
	// Minutes of whole-replica outages: longer and shorter than the lookback, and to the very end.
	a := [2]*Faults{
		{Outages: spans(0, 200, 207, 270, 281, 330, 333)},
		{Outages: spans(0, 220, 224, 300, 308, 350, 352, 357, 361)},
	}
	b := [2]*Faults{
		{Outages: spans(5, 220, 224, 300, 308, 352, 356)},
		{Outages: spans(5, 200, 207, 270, 281, 330, 333)},
	}
	window := Span{kept.From, end - 5*minute}
	scatter(eu, a, window, 16, true)
	scatter(us, b, window, 16, true)
	return &World{
		Name:  "aligned",
		Begin: Begin,
		End:   end,
		Truth: &Server{Name: "truth", Regions: []*Region{eu, us}, RegionLabel: true, Keep: Span{0, end + hour}, HeadFrom: end, Clock: onTime},
		Groups: []Group{
			pair(eu, a, [2]Clock{onTime, onTime}, kept, end-100*minute),
			pair(us, b, [2]Clock{onTime, onTime}, kept, end-100*minute),
			{
				Name:      "archive",
				Intrinsic: []string{"region"},
				DataEnd:   archived.To,
				Replicas: []*Server{{
					Name: "archive", Regions: []*Region{eu, us}, RegionLabel: true, Keep: archived, HeadFrom: archived.To - 80*minute, Clock: onTime,
				}},
			},
		},
	}
}

// Ordinary is two HA pairs on a usual day: their members share a clock, each is away once for minutes, and one target in a hundred loses a few
// scrapes of one member. Six hours; scale multiplies the number of targets, as in Aligned.
func Ordinary(scale int) *World {
	eu, us := fleet("eu", scale), fleet("us", scale)
	end := Begin + 6*hour
	all := Span{0, end + hour}
	f := [2][2]*Faults{
		{{Outages: spans(0, 150, 156)}, {Outages: spans(0, 320, 324)}},
		{{Outages: spans(0, 335, 338)}, {Outages: spans(0, 100, 108)}},
	}
	for i, r := range []*Region{eu, us} {
		some := &Region{Name: r.Name}
		for n := 7; n < len(r.Targets); n += 100 {
			some.Targets = append(some.Targets, r.Targets[n])
		}
		scatter(some, f[i], Span{Begin + 10*minute, end - 10*minute}, 4, false)
	}
	return &World{
		Name:  "ordinary",
		Begin: Begin,
		End:   end,
		Truth: &Server{Name: "truth", Regions: []*Region{eu, us}, RegionLabel: true, Keep: all, HeadFrom: end, Clock: onTime},
		Groups: []Group{
			pair(eu, f[0], [2]Clock{onTime, onTime}, all, end-100*minute),
			pair(us, f[1], [2]Clock{onTime, onTime}, all, end-100*minute),
		},
	}
}

// Dashboards is the world of an ordinary day that dashboards look at: two HA pairs as in Ordinary, of targets with 24 counters and a gauge
// each, and two archives that hold everything, a Prometheus ("archive") and a VictoriaMetrics ("victoriametrics"), of which a test is to
// take one (World.With). Seven hours; there are 6 targets per region at scale 1.
func Dashboards(scale int) *World {
	regions := []*Region{served("eu", 6*scale), served("us", 6*scale)}
	end := Begin + 7*hour
	all := Span{0, end + hour}
	w := &World{
		Name:  "dashboards",
		Begin: Begin,
		End:   end,
		Truth: &Server{Name: "truth", Regions: regions, RegionLabel: true, Keep: all, HeadFrom: end - 100*minute, Clock: onTime},
	}
	away := [2][2][]Span{{spans(0, 150, 156), spans(0, 320, 324)}, {spans(0, 335, 338), spans(0, 100, 108)}}
	for i, r := range regions {
		f := [2]*Faults{{Outages: away[i][0]}, {Outages: away[i][1]}}
		scatter(&Region{Name: r.Name, Targets: r.Targets[:1+scale/10]}, f, Span{Begin + 10*minute, end - 10*minute}, 4, false)
		w.Groups = append(w.Groups, pair(r, f, [2]Clock{onTime, onTime}, all, end-100*minute))
	}
	for _, a := range []*Server{{Name: "archive"}, {Name: "victoriametrics", Kind: VictoriaMetrics}} {
		a.Regions, a.RegionLabel, a.Keep, a.HeadFrom, a.Clock = regions, true, all, end-100*minute, onTime
		w.Groups = append(w.Groups, Group{Name: a.Name, Intrinsic: []string{"region"}, Replicas: []*Server{a}})
	}
	return w
}

// Shifted is the world of ordinary HA pairs: replica b scrapes half an interval after replica a, both with a few milliseconds of jitter.
// The truth has a's clock. Counters are read from one continuous process at the moment of the scrape. Three hours, in which each replica
// is away three times, and each target is missed up to faults times more by one of the two: for minutes every fourth time, else for one
// scrape.
func Shifted(faults int) *World {
	eu, us := steady("eu"), steady("us")
	end := Begin + 3*hour
	all := Span{0, end + hour}
	f := [2][2]*Faults{
		{{Outages: spans(0, 30, 33, 80, 91, 140, 143)}, {Outages: spans(0, 50, 54, 110, 118, 160, 162)}},
		{{Outages: spans(4, 50, 54, 110, 118, 160, 162)}, {Outages: spans(4, 30, 33, 80, 91, 140, 143)}},
	}
	window := Span{Begin + 10*minute, end - 10*minute}
	scatter(eu, f[0], window, faults, false)
	scatter(us, f[1], window, faults, false)
	first := jitter("a", 0)
	clocks := [2]Clock{first, jitter("b", 7500*time.Millisecond)}
	return &World{
		Name:  "shifted",
		Begin: Begin,
		End:   end,
		Truth: &Server{Name: "truth", Regions: []*Region{eu, us}, RegionLabel: true, Keep: all, HeadFrom: end, Clock: first},
		Groups: []Group{
			pair(eu, f[0], clocks, all, end-100*minute),
			pair(us, f[1], clocks, all, end-100*minute),
		},
	}
}

// pair is the group of a region's two replicas.
func pair(r *Region, faults [2]*Faults, clocks [2]Clock, keep Span, headFrom int64) Group {
	g := Group{
		Name:          r.Name,
		Region:        r.Name,
		Labels:        map[string]string{"region": r.Name},
		ReplicaLabels: []string{"replica"},
	}
	for i, name := range []string{"a", "b"} {
		g.Replicas = append(g.Replicas, &Server{
			Name:           r.Name + "-" + name,
			Regions:        []*Region{r},
			ExternalLabels: map[string]string{"region": r.Name, "replica": name},
			Keep:           keep,
			HeadFrom:       headFrom,
			Faults:         faults[i],
			Clock:          clocks[i],
		})
	}
	return g
}

// steady makes the ten targets of a region of the shifted world: they live for ever, and only some restart.
func steady(region string) *Region {
	r := &Region{Name: region}
	for i := range 10 {
		t := newTarget(region, "api", region+"-api-"+string(rune('0'+i))+":8080", 15*second)
		if i%4 == 0 {
			t.Restarts = []int64{Begin + (65+7*int64(i))*minute + t.Phase/3}
		}
		b := build{region: region, Target: t}
		b.counter(150, false, "http_requests_total", "code", "200")
		b.counter(25, false, "http_requests_total", "code", "404")
		b.counter(0.7, true, "process_cpu_seconds_total")
		b.counter(3e6, false, "node_network_receive_bytes_total")
		b.smoothGauge(3e8, "process_resident_memory_bytes")
		b.gauge(200, false, "inflight_requests")
		b.classic(60, "http_request_duration_seconds")
		b.native(60, "http_latency_seconds", "method", "GET")
		r.Targets = append(r.Targets, t)
	}
	return r
}

// served makes n targets of a region of the world of dashboards.
func served(region string, n int) *Region {
	r := &Region{Name: region, Decimals: true} // as a VictoriaMetrics stores them
	for i := range n {
		t := newTarget(region, []string{"api", "web", "auth"}[i%3], fmt.Sprintf("%s-%d:8080", region, i), 15*second)
		b := build{region: region, Target: t}
		for _, code := range []string{"200", "404", "500"} {
			for _, path := range []string{"/", "/items", "/orders", "/users"} {
				b.counter(40, false, "http_requests_total", "code", code, "path", path)
			}
		}
		b.classic(40, "http_request_duration_seconds")
		b.counter(0.8, true, "process_cpu_seconds_total")
		b.gauge(12, false, "inflight_requests")
		r.Targets = append(r.Targets, t)
	}
	return r
}
