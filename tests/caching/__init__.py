"""Nothing is done twice, nothing is lost: counted by the bodies that ran."""
