package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"

	"github.com/oneprom/oneprom/proxy/ruler"
	"github.com/oneprom/oneprom/servergroup/redact"
)

// Options are the command line of oneprom. The fields are named after the
// flags, which AddFlags defines along with the defaults.
type Options struct {
	ConfigFile string

	ListenAddresses []string
	SystemdSocket   bool   // take the sockets that systemd passes, and no addresses
	WebConfigFile   string // of exporter-toolkit; empty is plain HTTP without authentication
	ExternalURL     string // empty is derived from the host name and the first listener
	RoutePrefix     string // empty is the path of ExternalURL
	EnableLifecycle bool
	EnableAdminAPI  bool
	CORSOrigin      string // a regular expression, anchored at both ends
	ReadTimeout     model.Duration
	WriteTimeout    model.Duration // for a piece of an answer, 0 for no limit
	MaxConnections  int
	MaxUnreadBytes  Bytes // of answers, 0 for no limit
	SearchMaxLimit  int   // 0 is no limit

	QueryTimeout    model.Duration
	LookbackDelta   model.Duration
	MaxSamples      int
	MaxFetchedBytes Bytes
	// MaxRegionConcurrency is of requests to servers, 0 for no limit.
	MaxRegionConcurrency int

	MaxConcurrency          int
	MaxConcurrencyPerClient int
	MaxQueued               int
	QueueTimeout            model.Duration
	ClientHeader            string // empty is none

	Memory Memory

	AuditShare float64 // from 0 to 1

	CacheSize Bytes // 0 is no cache

	ReadSampleLimit     int
	ReadConcurrentLimit int
	ReadMaxBytesInFrame int

	Ruler ruler.Flags

	// EnableFeatures are comma separated lists of feature names.
	EnableFeatures []string

	// Flags is what /api/v1/status/flags shows. Parsing the command line fills it.
	Flags map[string]string

	Logger *slog.Logger // nil discards
	// Now is the clock of what looks at the present; nil is time.Now.
	Now func() time.Time
	// Ticks are those of servergroup.Options; nil: of a ticker.
	Ticks <-chan time.Time
}

// Bytes is a number of bytes on the command line: plain, or with a unit that
// counts in powers of two (KB, KiB, MB, MiB, GB, GiB).
type Bytes int64

// Set implements kingpin.Value.
func (b *Bytes) Set(s string) error {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		*b = Bytes(n)
		return nil
	}
	n, err := units.ParseBase2Bytes(s)
	if err != nil {
		return fmt.Errorf("%q is not a number of bytes, such as 1073741824 or 1GiB", s)
	}
	*b = Bytes(n)
	return nil
}

func (b *Bytes) String() string { return units.Base2Bytes(*b).String() }

// AddFlags defines the flags, named and set by default as those of Prometheus,
// and lets o receive their values.
func AddFlags(app *kingpin.Application, o *Options) {
	app.Flag("config.file", "Path of the configuration file.").
		Default("oneprom.yml").StringVar(&o.ConfigFile)

	app.Flag("web.listen-address", "Address to listen on for the API, the page and the metrics. Can be repeated.").
		Default("0.0.0.0:9090").StringsVar(&o.ListenAddresses)
	if runtime.GOOS == "linux" {
		app.Flag("web.systemd-socket", "Listen on the sockets that systemd passes (socket activation) instead of --web.listen-address.").
			Default("false").BoolVar(&o.SystemdSocket)
	}
	app.Flag("web.config.file", "Path of a web configuration file that turns on TLS or authentication, in the format of Prometheus' exporter-toolkit.").
		Default("").StringVar(&o.WebConfigFile)
	app.Flag("web.external-url", "URL under which oneprom is reached from outside, for instance through a reverse proxy. Its path prefixes all routes unless --web.route-prefix says otherwise.").
		PlaceHolder("<URL>").StringVar(&o.ExternalURL)
	app.Flag("web.route-prefix", "Prefix of all routes. Defaults to the path of --web.external-url.").
		PlaceHolder("<path>").StringVar(&o.RoutePrefix)
	app.Flag("web.enable-lifecycle", "Allow reload and shutdown by HTTP request (/-/reload, /-/quit).").
		Default("false").BoolVar(&o.EnableLifecycle)
	app.Flag("web.enable-admin-api", "Allow to cancel running queries (DELETE /api/v1/status/queries/<id>) and to force circuit breakers (POST /api/v1/admin/breaker) by HTTP request.").
		Default("false").BoolVar(&o.EnableAdminAPI)
	app.Flag("web.cors.origin", `Regular expression for the origins that browsers may call from, anchored at both ends. Example: 'https?://(domain1|domain2)\.com'`).
		Default(".*").StringVar(&o.CORSOrigin)
	app.Flag("web.read-timeout", "How long reading a request may take, and how long an idle connection stays open.").
		Default("5m").SetValue(&o.ReadTimeout)
	app.Flag("web.write-timeout", "How long a client may take to read 64KiB of an answer. Then the connection is closed. 0 is no limit.").
		Default("1m").SetValue(&o.WriteTimeout)
	app.Flag("web.max-unread-bytes", "How many bytes of answers may wait for clients to read them. If there are more, clients that have read nothing for a second are cut off. 0 is no limit.").
		Default("128MiB").SetValue(&o.MaxUnreadBytes)
	app.Flag("web.max-connections", "How many connections may be open at once, over all listeners. Further ones wait.").
		Default("512").IntVar(&o.MaxConnections)

	app.Flag("web.search.max-limit", "How many results a request to the search API (--enable-feature=search-api) may ask for. 0 is no limit.").
		Default("10000").IntVar(&o.SearchMaxLimit)

	app.Flag("query.timeout", "How long a query may take. A request's own timeout can only shorten it.").
		Default("2m").SetValue(&o.QueryTimeout)
	app.Flag("query.lookback-delta", "How old a sample may be to be the value of its series, in queries and in federation.").
		Default("5m").SetValue(&o.LookbackDelta)
	app.Flag("query.max-samples", "How many samples one query may hold in memory. A query that needs more fails.").
		Default("50000000").IntVar(&o.MaxSamples)
	app.Flag("query.max-concurrency", "How many queries, and other requests to the server groups, are worked on at once. Further ones wait. See --query.queue-timeout. The default is less where there is less than 1.4GiB of memory.").
		Default("20").IsSetByUser(&o.Memory.slotsGiven).IntVar(&o.MaxConcurrency)
	app.Flag("query.max-concurrency-per-client", "How many of these may be of one client. 0 is no limit. See --query.client-header.").
		Default("0").IntVar(&o.MaxConcurrencyPerClient)
	app.Flag("query.queue-timeout", "How long a request may wait before it is refused with 429. A query waits no longer than its own timeout, either.").
		Default("10s").SetValue(&o.QueueTimeout)
	app.Flag("query.max-queued", "How many requests may wait. Further ones are refused with 429 at once. 0 is none.").
		Default("1000").IntVar(&o.MaxQueued)
	app.Flag("query.client-header", "Header that names the client of a request. Clients take turns when requests wait. Without it, the user of basic authentication is the client, and else the remote IP address.").
		PlaceHolder("<name>").StringVar(&o.ClientHeader)
	app.Flag("query.max-region-concurrency", "How many requests may be under way to the servers of one region at once. Further ones wait, within their query's timeout. 0 is no limit. See also max_concurrency of server groups.").
		Default("100").IntVar(&o.MaxRegionConcurrency)
	app.Flag("query.max-fetched-bytes", "How many bytes of samples may be held for one query. A query that needs more fails. 0 is no limit. See also --query.max-samples. The default is less where there is less than 17GiB of memory.").
		Default("1GiB").IsSetByUser(&o.Memory.bytesGiven).SetValue(&o.MaxFetchedBytes)

	o.Memory.addFlags(app)

	app.Flag("audit.share", "Which part of the answers that a replica gave alone is compared with the raw samples of its twin afterwards, from 0 (none) to 1 (all). Audits fetch at most 2 % of the bytes that the answers of a server group bring, and 16MiB in the beginning.").
		Default("0.005").Float64Var(&o.AuditShare)

	app.Flag("cache.size", "How many bytes of answers to range queries and lookups are kept in memory, so that only what is new of them is asked for again. 0 keeps none. The default is less where there is less than 2.5GiB of memory.").
		Default("256MiB").IsSetByUser(&o.Memory.cacheGiven).SetValue(&o.CacheSize)

	app.Flag("storage.remote.read-sample-limit", "How many samples one remote read request may be answered with, if it asks for samples rather than streamed chunks. 0 is no limit.").
		Default("5e7").IntVar(&o.ReadSampleLimit)
	app.Flag("storage.remote.read-concurrent-limit", "How many of the requests of --query.max-concurrency may be remote read. 0 is no limit.").
		Default("10").IntVar(&o.ReadConcurrentLimit)
	app.Flag("storage.remote.read-max-bytes-in-frame", "Size in bytes of a frame of streamed remote read, before marshalling.").
		Default("1048576").IntVar(&o.ReadMaxBytesInFrame)

	ruler.AddFlags(app, &o.Ruler)

	app.Flag("enable-feature", "Comma separated names of features to enable: "+featureNames()+". Can be repeated.").
		StringsVar(&o.EnableFeatures)

	app.Action(func(*kingpin.ParseContext) error {
		o.Flags = flagValues(app)
		return nil
	})
}

// flagValues is the command line as /api/v1/status/flags shows it, without the
// flags that every program has.
func flagValues(app *kingpin.Application) map[string]string {
	everywhere := kingpin.New("", "").Version("")
	values := map[string]string{}
	for _, f := range app.Model().Flags {
		if everywhere.GetFlag(f.Name) == nil {
			values[f.Name] = redact.URLs(f.Value.String())
		}
	}
	return values
}

// validate refuses values that would only fail later. The error has all problems.
func (o *Options) validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(o.ConfigFile == "", "--config.file is empty: name the configuration file")
	refuse(len(o.ListenAddresses) == 0, "--web.listen-address is missing: give at least one host:port")
	refuse(o.MaxConnections < 1, "--web.max-connections=%d: must be at least 1", o.MaxConnections)
	refuse(o.ReadTimeout < 0, "--web.read-timeout=%s: must not be negative", o.ReadTimeout)
	refuse(o.WriteTimeout < 0, "--web.write-timeout=%s: must not be negative", o.WriteTimeout)
	refuse(o.MaxUnreadBytes < 0, "--web.max-unread-bytes=%d: must not be negative", o.MaxUnreadBytes)
	refuse(o.SearchMaxLimit < 0, "--web.search.max-limit=%d: must not be negative", o.SearchMaxLimit)
	refuse(o.QueryTimeout <= 0, "--query.timeout=%s: must be longer than 0s", o.QueryTimeout)
	refuse(o.LookbackDelta <= 0, "--query.lookback-delta=%s: must be longer than 0s", o.LookbackDelta)
	refuse(o.MaxSamples < 1, "--query.max-samples=%d: must be at least 1", o.MaxSamples)
	refuse(o.MaxConcurrency < 1, "--query.max-concurrency=%d: must be at least 1", o.MaxConcurrency)
	refuse(o.MaxConcurrencyPerClient < 0, "--query.max-concurrency-per-client=%d: must not be negative", o.MaxConcurrencyPerClient)
	refuse(o.QueueTimeout <= 0, "--query.queue-timeout=%s: must be longer than 0s; --query.max-queued=0 lets nobody wait", o.QueueTimeout)
	refuse(o.MaxQueued < 0, "--query.max-queued=%d: must not be negative", o.MaxQueued)
	refuse(o.MaxRegionConcurrency < 0, "--query.max-region-concurrency=%d: must not be negative", o.MaxRegionConcurrency)
	refuse(o.MaxFetchedBytes < 0, "--query.max-fetched-bytes=%d: must not be negative", o.MaxFetchedBytes)
	refuse(!(o.Memory.Ratio > 0 && o.Memory.Ratio <= 1), "--auto-gomemlimit.ratio=%g: must be more than 0, and at most 1", o.Memory.Ratio)
	refuse(o.Memory.RefreshInterval < 0, "--auto-gomemlimit.refresh-interval=%s: must not be negative", o.Memory.RefreshInterval)
	refuse(o.AuditShare < 0 || o.AuditShare > 1 || math.IsNaN(o.AuditShare), "--audit.share=%g: must be from 0 to 1", o.AuditShare)
	refuse(o.CacheSize < 0, "--cache.size=%d: must not be negative", o.CacheSize)
	refuse(o.ReadSampleLimit < 0, "--storage.remote.read-sample-limit=%d: must not be negative", o.ReadSampleLimit)
	refuse(o.ReadConcurrentLimit < 0, "--storage.remote.read-concurrent-limit=%d: must not be negative", o.ReadConcurrentLimit)
	refuse(o.ReadMaxBytesInFrame < 1, "--storage.remote.read-max-bytes-in-frame=%d: must be at least 1", o.ReadMaxBytesInFrame)
	return errors.Join(append(errs, o.Ruler.Validate())...)
}
