//go:build linux

package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// watch is a directory and what happens in it that is of interest, beside its own end.
type watch struct {
	dir    string
	events uint32
	// mayBeMissing is for a directory in one that is watched for new ones.
	mayBeMissing bool
}

const (
	// projected covers the kubelet's swap of "..data" (MOVED_TO), the links that it makes after its first
	// swap (CREATE), and files written in place.
	projected = unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_CLOSE_WRITE
	// gone is the directory itself going away.
	gone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// watcher tells of changes in directories. There is one for the life of the process, and it is not closed before its end: to close an
// inotify instance takes the kernel 10 milliseconds (it waits for an SRCU grace period, fsnotify_wait_marks_destroyed in
// fs/notify/mark.c), and that right between the release of a step and its start.
type watcher struct {
	inotify int        // -1: there is none
	buffer  [4096]byte // more than the longest event, inotify(7)
}

func newWatcher() *watcher {
	return &watcher{inotify: -1}
}

// watch makes changes in the directories wake changed. It returns false where it can't: inotify is not to be had (a UID has 128
// instances by default, fs.inotify.max_user_instances) or a directory does not exist. For one that is already watched the kernel
// changes nothing.
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

// changed blocks until something may have changed: after an event, or after the given time. It returns false where the watcher is of no
// use, at once.
func (w *watcher) changed(within time.Duration) bool {
	poll := []unix.PollFd{{Fd: int32(w.inotify), Events: unix.POLLIN}} //nolint:gosec // file descriptors are small numbers
	_, err := unix.Poll(poll, int(within.Milliseconds()))
	// Which event it was does not matter, even an overflow: the files are read again.
	_, _ = unix.Read(w.inotify, w.buffer[:])
	return err == nil || err == unix.EINTR
}
