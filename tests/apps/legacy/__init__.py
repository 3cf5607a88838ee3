"""Makes the folder a package, as folders of that age often are: Flask imports `legacy.app`."""
