package ruler

import (
	"errors"
	"fmt"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
)

// Flags are the part of the command line about rules. The fields are named after the
// flags.
type Flags struct {
	ForOutageTolerance model.Duration
	ForGracePeriod     model.Duration
	ResendDelay        model.Duration
	MaxConcurrentEvals int

	NotificationQueueCapacity int
	DrainNotificationQueue    bool

	AgentPath     string
	FlushDeadline model.Duration
}

// AddFlags defines the flags, named as those of Prometheus, and lets f receive their
// values.
func AddFlags(app *kingpin.Application, f *Flags) {
	app.Flag("rules.alert.for-outage-tolerance", "How long oneprom may have been away for the \"for\" state of alerts to be restored.").
		Default("1h").SetValue(&f.ForOutageTolerance)
	app.Flag("rules.alert.for-grace-period", "How long an alert whose \"for\" state was restored waits at least before it fires. State is restored only for alerts whose \"for\" is at least this long.").
		Default("10m").SetValue(&f.ForGracePeriod)
	app.Flag("rules.alert.resend-delay", "How long to wait at least before an alert is sent to Alertmanager again.").
		Default("1m").SetValue(&f.ResendDelay)
	app.Flag("rules.max-concurrent-evals", "How many rules are evaluated at once, over all groups of rules. They need no slot of --query.max-concurrency.").
		Default("20").IntVar(&f.MaxConcurrentEvals)
	app.Flag("alertmanager.notification-queue-capacity", "How many alerts may wait to be sent to an Alertmanager.").
		Default("10000").IntVar(&f.NotificationQueueCapacity)
	app.Flag("alertmanager.drain-notification-queue-on-shutdown", "Send the alerts that wait before oneprom stops.").
		Default("true").BoolVar(&f.DrainNotificationQueue)
	app.Flag("storage.agent.path", "Directory of the samples that wait to be written by remote_write. It is not used without remote_write.").
		Default("data-agent/").StringVar(&f.AgentPath)
	app.Flag("storage.remote.flush-deadline", "How long to wait at a stop or reload for samples to be written by remote_write.").
		Default("1m").SetValue(&f.FlushDeadline)
}

// Validate refuses values that would only fail later. The error has all problems.
func (f *Flags) Validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(f.ForOutageTolerance < 0, "--rules.alert.for-outage-tolerance=%s: must not be negative", f.ForOutageTolerance)
	refuse(f.ForGracePeriod < 0, "--rules.alert.for-grace-period=%s: must not be negative", f.ForGracePeriod)
	refuse(f.ResendDelay < 0, "--rules.alert.resend-delay=%s: must not be negative", f.ResendDelay)
	refuse(f.MaxConcurrentEvals < 1, "--rules.max-concurrent-evals=%d: must be at least 1", f.MaxConcurrentEvals)
	refuse(f.NotificationQueueCapacity < 1, "--alertmanager.notification-queue-capacity=%d: must be at least 1", f.NotificationQueueCapacity)
	refuse(f.AgentPath == "", "--storage.agent.path is empty: name a directory")
	refuse(f.FlushDeadline < 0, "--storage.remote.flush-deadline=%s: must not be negative", f.FlushDeadline)
	return errors.Join(errs...)
}
