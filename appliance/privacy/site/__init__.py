"""The site's own lists of clients, employees, projects and organisations: kept encrypted, found in every form."""
