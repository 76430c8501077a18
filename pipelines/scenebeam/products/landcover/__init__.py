"""Land-cover chips: windows of one class, from several sensors and dates, in a release."""
