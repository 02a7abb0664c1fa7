"""The makers of exhibits: `exhibit.makers` imports every module of this package."""
