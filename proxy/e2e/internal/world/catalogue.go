package world

import (
	"fmt"
	"strconv"
)

// fleet makes the targets of a region: 20 of them and two rule groups at scale 1, and proportionally more at higher scales.
// The exotic series are on every target of their job, whatever the scale.
func fleet(region string, scale int) *Region {
	r := &Region{Name: region}
	add := func(n int, job string, interval int64, instance func(i int) string, fill func(b build, i int)) {
		for i := range n * scale {
			t := newTarget(region, job, instance(i), interval)
			b := build{region: region, Target: t}
			disturb(b, i)
			b.constant(float64(t.startedAt(Begin))/1000, "process_start_time_seconds")
			fill(b, i)
			r.Targets = append(r.Targets, t)
		}
	}
	own := func(format string) func(int) string {
		return func(i int) string { return fmt.Sprintf(region+"-"+format, i) }
	}
	shared := func(format string) func(int) string { // the same name in both regions: only the region tells them apart
		return func(i int) string { return fmt.Sprintf(format, i) }
	}
	add(6, "api", 15*second, own("api-%d:8080"), api)
	add(4, "web", 15*second, own("web-%d:8081"), web)
	add(2, "db", 15*second, shared("db-%d:5432"), db)
	add(5, "node", 15*second, own("node-%d:9100"), node)
	add(2, "batch", 60*second, shared("batch-%d:9091"), batch)
	if region == "us" {
		add(1, "edge", 15*second, own("edge-%d:80"), edge)
	} else {
		add(1, "cron", 15*second, own("cron-%d:80"), batch)
	}
	r.Targets = append(r.Targets, ruleGroup(region, "recorded", recordedRules), ruleGroup(region, "alerts", alertRules))
	return r
}

// disturb gives some targets of a job restarts, true outages, and a late birth or an early death.
func disturb(b build, i int) {
	at := func(h, m int64) int64 { return Begin + h*hour + m*minute + b.Phase/2 }
	switch i % 6 {
	case 0:
		b.Restarts = []int64{at(1, 7), at(5, 21)}
	case 1:
		b.Restarts = []int64{at(3, 48)}
	case 3:
		b.Down = []Span{{at(4, 50), at(4, 56)}, {at(5, 47), at(5, 47) + 20*second}}
		b.Restarts = []int64{at(4, 55)}
	case 4:
		b.Life.To = at(5, 15)
	case 5:
		b.Life.From = at(4, 20)
	}
}

func api(b build, i int) {
	for j, p := range [][]string{{"GET", "200", "/items"}, {"GET", "404", "/items"}, {"POST", "200", "/items"}, {"POST", "500", "/orders"}, {"DELETE", "200", "/orders"}} {
		b.counter(120/float64(j+1), false, "http_requests_total", "method", p[0], "code", p[1], "handler", p[2])
	}
	b.classic(40, "http_request_duration_seconds", "handler", "/items")
	b.native(50, "http_latency_seconds", "method", "GET")
	b.native(5, "http_latency_seconds", "method", "POST")
	b.custom(20, "rpc_latency_seconds")
	b.distribution(40, "queue_wait")
	b.counter(0.8, true, "process_cpu_seconds_total")
	b.gauge(3e8, false, "process_resident_memory_bytes")
	b.gauge(12, false, "inflight_requests")
	release := "1." + strconv.Itoa(i%3)
	b.constant(1, "target_info", "version", release, "service.name", "api", "zone", b.region+"-"+strconv.Itoa(i%2))
	b.constant(1, "build_info", "version", release, "revision", "r"+strconv.Itoa(i%3))
	if i%6 < 2 {
		b.sessions(Span{Begin, Begin + 6*hour}, "session_requests_total")
	}
	b.flapping(false, "feature_active", "flag", "beta")
	b.flapping(true, "probe_value", "probe", "dns")
}

func web(b build, i int) {
	b.counter(70, false, "http_requests_total", "method", "GET", "code", "200", "handler", "/")
	b.counter(0.4, false, "http_requests_total", "method", "GET", "code", "500", "handler", "/")
	b.classic(15, "http_request_duration_seconds", "handler", "/")
	b.gauge(21.5, true, "http.server.active_requests", "http.route", "/x")
	b.gauge(-4, true, "temperature_celsius", "sensor", "outside")
	b.switching(9, "mixed_latency")
	b.constant(1, "target_info", "version", "2."+strconv.Itoa(i%2), "service.name", "web", "zone", b.region+"-0")
	b.constant(1, "build_info", "version", "2."+strconv.Itoa(i%2), "revision", "w"+strconv.Itoa(i%2))
	b.flapping(false, "feature_active", "flag", "dark")
}

func db(b build, _ int) {
	for _, name := range []string{"orders", "users"} {
		b.counter(33, false, "db_transactions_total", "db", name)
		b.smoothGauge(5e9, "db_size_bytes", "db", name)
		b.gauge(25, false, "db_connections", "db", name, "state", "active")
		b.gauge(60, false, "db_connections", "db", name, "state", "idle")
	}
	b.odd("odd_values", "kind", "edge")
}

func node(b build, _ int) {
	for _, cpu := range []string{"0", "1"} {
		b.counter(0.7, true, "node_cpu_seconds_total", "cpu", cpu, "mode", "idle")
		b.counter(0.2, true, "node_cpu_seconds_total", "cpu", cpu, "mode", "user")
		b.counter(0.08, true, "node_cpu_seconds_total", "cpu", cpu, "mode", "system")
	}
	b.constant(16<<30, "node_memory_MemTotal_bytes")
	b.gauge(6<<30, false, "node_memory_MemAvailable_bytes")
	for _, m := range []string{"/", "/data"} {
		b.constant(1e12, "node_filesystem_size_bytes", "mountpoint", m, "fstype", "ext4")
		b.smoothGauge(4e11, "node_filesystem_avail_bytes", "mountpoint", m, "fstype", "ext4")
	}
	b.gauge(1.5, true, "node_load1")
	b.counter(2e6, false, "node_network_receive_bytes_total", "device", "eth0")
}

func batch(b build, _ int) {
	b.counter(250, false, "batch_records_total")
	b.gauge(40, true, "batch_duration_seconds")
	b.add(func(t int64) (sample, bool) { return float(float64(t/(10*minute)*600) + 0.5) }, "batch_last_success_timestamp_seconds")
}

func edge(b build, _ int) {
	b.counter(500, false, "edge_cache_hits_total", "pop", "iad")
	b.counter(60, false, "edge_cache_misses_total", "pop", "iad")
	b.odd("edge_only_gauge")
}

// ruleGroup makes the results of a rule group, evaluated once a minute: series without instance and without up.
func ruleGroup(region, name string, fill func(b build)) *Target {
	t := newTarget(region, "rules", name, 60*second)
	t.Rules = true
	fill(build{region: region, Target: t})
	return t
}

func recordedRules(b build) {
	for _, job := range []string{"api", "web"} {
		b.smoothGauge(130, "job:http_requests:rate5m", "job", job)
	}
	for _, mode := range []string{"idle", "user"} {
		b.smoothGauge(0.4, "mode:node_cpu:ratio", "mode", mode)
	}
	b.recorded(5, "job:http_latency:rate5m", "job", "api")
}

func alertRules(b build) {
	b.flapping(false, "ALERTS", "alertname", "HighLatency", "alertstate", "firing", "severity", "page")
	b.flapping(false, "ALERTS", "alertname", "DiskFull", "alertstate", "pending", "severity", "ticket")
	b.constant(float64(Begin/1000), "ALERTS_FOR_STATE", "alertname", "HighLatency", "severity", "page")
}
