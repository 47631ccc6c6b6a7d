//go:build linux

package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// watch is a directory and the events in it that are of interest, besides its own end.
type watch struct {
	dir    string
	events uint32
	// mayBeMissing is for a directory whose parent has a watch for new directories.
	mayBeMissing bool
}

const (
	// projected covers the kubelet's rename onto "..data" (MOVED_TO), the links that it creates after the first rename (CREATE), and files that
	// are written in place.
	projected = unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_CLOSE_WRITE
	// gone is the end of the directory itself.
	gone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// watcher reports changes in directories. A process has one, and never closes it: closing an inotify instance takes 10 milliseconds (the kernel
// waits for an SRCU grace period in fsnotify_wait_marks_destroyed, fs/notify/mark.c), between the release of a step and its start.
type watcher struct {
	inotify int        // -1: none
	buffer  [4096]byte // more than the longest event, inotify(7)
}

// watch makes changes in the directories wake changed. It returns false if that is impossible: a directory is missing, or there is no inotify
// instance left (by default a user has 128, fs.inotify.max_user_instances). Watching a directory again has no effect.
func (w *watcher) watch(watches []watch) bool {
	if w.inotify < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return false
		}
		w.inotify = fd
	}
	for _, watch := range watches {
		_, err := unix.InotifyAddWatch(w.inotify, watch.dir, watch.events|gone|unix.IN_ONLYDIR)
		if err != nil && (err != unix.ENOENT || !watch.mayBeMissing) {
			return false
		}
	}
	return true
}

// changed blocks until there is an event, or the given time is over. It returns false at once if polling fails.
func (w *watcher) changed(within time.Duration) bool {
	poll := []unix.PollFd{{Fd: int32(w.inotify), Events: unix.POLLIN}} //nolint:gosec // file descriptors are small numbers
	_, err := unix.Poll(poll, int(within.Milliseconds()))
	// The caller reads the files again after any event, even an overflow.
	_, _ = unix.Read(w.inotify, w.buffer[:])
	return err == nil || err == unix.EINTR
}
