package replica

import (
	"fmt"
	"time"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// wrongClock is how far clocks may be apart before it is said: more than clocks that are
// set by NTP are, and less than shows in a graph of hours.
const wrongClock = 30 * time.Second

// ClockDoubt says that the clock of a replica is wrong, and so the times of its samples; "" if
// nothing shows that it is.
func ClockDoubt(c *transport.Client) string {
	ahead := c.Clock.Ahead()
	where := "ahead of"
	if ahead < 0 {
		ahead, where = -ahead, "behind"
	}
	if ahead < wrongClock {
		return ""
	}
	return fmt.Sprintf("its clock is %s %s oneprom's, and so are the times of its samples, unless oneprom's is wrong", ahead.Round(10*time.Second), where)
}
