"""One file a revision, in the order their names give. A revision that has been released is never edited."""
