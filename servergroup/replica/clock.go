package replica

import (
	"fmt"
	"time"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// maxClockOffset is how far the clock of a replica may be off before there is a warning. Clocks
// that NTP sets are closer, and graphs of hours do not show a smaller offset.
const maxClockOffset = 30 * time.Second

// ClockDoubt returns a warning if the clock of a replica is wrong, and so are the times of its
// samples; else "".
func ClockDoubt(c *transport.Client) string {
	ahead := c.Clock.Ahead()
	where := "ahead of"
	if ahead < 0 {
		ahead, where = -ahead, "behind"
	}
	if ahead < maxClockOffset {
		return ""
	}
	return fmt.Sprintf("its clock is %s %s oneprom's, and so are the times of its samples, unless oneprom's is wrong", ahead.Round(10*time.Second), where)
}
